"""The frames of a GIF, counted before anything is decoded."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data.image_files import gif_of
from tlkit.data.images.decoder import decode
from tlkit.data.images.other_formats import frame_pixels

# As it runs: in a graph.
count_pixels = tf.function(frame_pixels, [tf.TensorSpec([], tf.string)])


def saved(frames):
    out = io.BytesIO()
    frames = [Image.fromarray(frame).quantize(256) for frame in frames]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize("shared", [None, 0, 7])
@pytest.mark.parametrize("own", [None, 2])
def test_every_frame_counts_whatever_its_palette(shared, own):
    raw = gif_of([(3, 5), (300, 1000), (65_535, 2)], shared=shared, own=own)
    assert count_pixels(raw) == (15 + 300_000 + 131_070, True)


@pytest.mark.parametrize("full", [0, 1, 15, 16, 17, 600])
@pytest.mark.parametrize("end", [b"\0", b"\1,\0", b"\xfe" + b"," * 254 + b"\0"])
def test_data_of_any_length_is_passed_over(full, end):
    # Every byte of the data looks like the beginning of a frame.
    data = (b"\xff" + b"," * 255) * full + end
    assert count_pixels(gif_of([(7, 11), (13, 17)], data)) == (77 + 221, True)


def test_frames_of_a_real_gif_count():
    random = np.random.default_rng(0)
    raw = saved(random.integers(0, 256, (3, 300, 500, 3)).astype(np.uint8))
    assert len(raw) > 2**18
    assert count_pixels(raw) == (3 * 300 * 500, True)
    assert decode(tf.constant(raw), (300, 500)).shape == (300, 500, 3)


@pytest.mark.parametrize("length", [0, 6, 12, 13, 20, 30, 50])
def test_what_is_cut_off_comes_to_an_end(length):
    pixels, ends = count_pixels(gif_of([(3, 5)], shared=0)[:length])
    assert ends and pixels in (0, 15)


def test_frames_larger_than_the_screen_are_refused_before_they_are_decoded():
    raw = gif_of([(40, 24), (16_000, 15_000), (16_000, 15_000)], shared=0)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"have\] \[480\]"):
        decode(tf.constant(raw), (8, 8))


def test_a_file_of_tiny_blocks_is_refused_and_not_looked_at_for_minutes():
    raw = gif_of([(40, 24)], b"\1," * 100_000 + b"\0")
    assert not count_pixels(raw)[1]
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many pieces"):
        decode(tf.constant(raw), (8, 8))
