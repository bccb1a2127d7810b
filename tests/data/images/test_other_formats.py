"""The first frame of a GIF, found before anything is decoded."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tests.data.image_files import gif_of
from tlkit.data.images.other_formats import _first_frame, decode_other_format

# In a graph, as in an export.
first_frame = tf.function(_first_frame, [tf.TensorSpec([], tf.string)])
decoded = tf.function(decode_other_format, [tf.TensorSpec([], tf.string)])


def saved(frames):
    out = io.BytesIO()
    frames = [Image.fromarray(frame).quantize(256) for frame in frames]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize("shared", [None, 0, 7])
@pytest.mark.parametrize("own", [None, 2])
def test_the_first_frame_is_found_whatever_its_palette(shared, own):
    options = {"shared": shared, "own": own}
    raw = gif_of([(3, 5), (300, 1000), (65_535, 2)], **options)
    assert first_frame(raw) == gif_of([(3, 5)], **options)


@pytest.mark.parametrize("block", [1, 7, 254, 255])
@pytest.mark.parametrize("count", [0, 1, 15, 4096, 4097])
@pytest.mark.parametrize("end", [b"\0", b"\1,\0", b"\xfd" + b"," * 253 + b"\0"])
def test_blocks_of_any_length_belong_to_the_frame(block, count, end):
    # Every byte of the data looks like the beginning of a frame.
    data = (bytes([block]) + b"," * block) * count + end
    raw = gif_of([(7, 11), (13, 17)], data)
    assert first_frame(raw) == gif_of([(7, 11)], data)


def test_a_real_gif_has_its_first_frame_only():
    random = np.random.default_rng(0)
    raw = saved(random.integers(0, 256, (3, 300, 500, 3)).astype(np.uint8))
    assert len(raw) > 2**18
    image = Image.open(io.BytesIO(first_frame(raw).numpy()))
    assert image.n_frames == 1 and image.size == (500, 300)
    expected = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
    np.testing.assert_array_equal(decoded(raw), expected)


@pytest.mark.parametrize("length", [0, 6, 12, 13, 20, 30, 50])
def test_a_gif_that_is_cut_off_raises_an_error(length):
    with pytest.raises(tf.errors.InvalidArgumentError, match="is cut off"):
        first_frame(gif_of([(3, 5)], shared=0)[:length])


def test_later_frames_are_not_decoded_however_large():
    pixel = saved(np.zeros((1, 24, 40, 3), np.uint8))
    end = first_frame(pixel).numpy()[:-1]
    rest = gif_of([(16_000, 15_000)] * 100)[13:]
    np.testing.assert_array_equal(decoded(end + rest), np.zeros((24, 40, 3)))


def test_blocks_of_changing_lengths_take_a_limited_time():
    raw = gif_of([(40, 24)], b"\1,\2,," * 50_000 + b"\0")
    with pytest.raises(tf.errors.InvalidArgumentError, match="blocks are too many"):
        first_frame(raw)
