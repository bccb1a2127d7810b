"""Images of every format have the pixels that Pillow decodes, or raise an error."""

import contextlib
import functools
import io
import re
import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tests.data.image_files import (
    encoded,
    enormous_jpeg,
    enormous_png,
    exif,
    gif_of,
    saved,
    scene,
    with_exif,
)
from tlkit.data.images.decoder import check, decode, rare_formats_in_python
from tlkit.data.images.jpeg import reduced

SMALL = scene(40, 24)


# Tests decode to few sizes, since making the two graphs of a size takes two seconds.
WHOLE, TURNED, TINY, LARGE = (24, 40), (40, 24), (7, 5), (70, 50)


@functools.cache
def _graph(size, with_window, in_python):
    """Returns the graph of an exported model, or that of a data set."""
    specs = [tf.TensorSpec([], tf.string)]
    specs += [tf.TensorSpec([4], tf.float32)] * with_window
    function = tf.function(lambda raw, *window: decode(raw, size, *window), specs)
    with rare_formats_in_python() if in_python else contextlib.nullcontext():
        return function.get_concrete_function()


def decoded(raw, size, window=None):
    """Returns what both graphs return, or raises the error that both raise."""
    given = [tf.constant(raw)]
    given += [] if window is None else [tf.constant(window, tf.float32)]
    one, other = (_graph(size, window is not None, flag) for flag in (False, True))
    try:
        found = one(*given).numpy()
    except tf.errors.InvalidArgumentError as error:
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            other(*given)
        assert _said(caught.value) == _said(error)
        raise
    np.testing.assert_array_equal(other(*given).numpy(), found)
    return found


def _said(error):
    """What an error says is wrong, without the names of functions and ops."""
    first = error.message.partition("\n")[0]
    return re.sub(r"\{\{.*?\}\} |ValueError: | \[Op:.*", "", first)


def as_pillow(raw):
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(raw)))
    return np.asarray(image.convert("RGB"), np.float32)


def transparent(mode):
    image = SMALL.convert(mode)
    image.putalpha(Image.linear_gradient("L").resize(SMALL.size))
    return image


LOSSLESS = {
    "PNG": saved(SMALL, "PNG"),
    "PNG, interlaced": saved(SMALL, "PNG", interlace=1),
    "PNG, gray": saved(SMALL.convert("L"), "PNG"),
    "PNG, black and white": saved(SMALL.convert("1"), "PNG"),
    "PNG, gray and alpha": saved(transparent("L"), "PNG"),
    "PNG, alpha": saved(transparent("RGB"), "PNG"),
    "PNG, palette": saved(SMALL.quantize(200), "PNG"),
    "PNG, palette of 4 bits": saved(SMALL.quantize(13), "PNG", bits=4),
    "PNG, transparent palette": saved(SMALL.quantize(20), "PNG", transparency=3),
    "GIF": saved(SMALL.quantize(64), "GIF"),
    "GIF, interlaced": saved(SMALL.quantize(64), "GIF", interlace=1),
    "BMP": saved(SMALL, "BMP"),
    "BMP, gray": saved(SMALL.convert("L"), "BMP"),
    "BMP, palette": saved(SMALL.quantize(200), "BMP"),
    "BMP, small palette": saved(SMALL.quantize(20), "BMP"),
    "BMP, alpha": saved(SMALL.convert("RGBA"), "BMP"),
    "WebP": saved(SMALL, "WEBP", lossless=True),
    "WebP, alpha": saved(transparent("RGB"), "WEBP", lossless=True, exact=True),
}
LOSSY = {
    "JPEG": saved(SMALL, "JPEG", quality=90),
    "JPEG, whole color": saved(SMALL, "JPEG", quality=90, subsampling=0),
    "JPEG, progressive": saved(SMALL, "JPEG", quality=90, progressive=True),
    "JPEG, gray": saved(SMALL.convert("L"), "JPEG", quality=90),
    "JPEG, CMYK": saved(SMALL.convert("CMYK"), "JPEG", quality=90),
    "WebP": saved(SMALL, "WEBP", quality=90),
}


@pytest.mark.parametrize("name", LOSSLESS)
def test_what_loses_nothing_comes_out_as_from_pillow(name):
    raw = LOSSLESS[name]
    np.testing.assert_array_equal(decoded(raw, WHOLE), as_pillow(raw))
    np.testing.assert_array_equal(check(raw), [24, 40, 3])


@pytest.mark.parametrize("name", LOSSY)
def test_what_loses_a_little_comes_out_as_from_pillow(name):
    raw = LOSSY[name]
    difference = np.abs(decoded(raw, WHOLE) - as_pillow(raw))
    assert difference.mean() < 0.5
    assert difference.max() <= 6


def test_four_inks_as_adobe_and_others_store_them():
    adobe = LOSSY["JPEG, CMYK"]
    at = adobe.index(b"Adobe\0")
    # As luma, chroma and black (a 2 in its last byte), and without Adobe's segment,
    # which says that inks are stored as what is left of the paper.
    for raw in (adobe[: at + 11] + b"\2" + adobe[at + 12 :],):
        np.testing.assert_allclose(decoded(raw, WHOLE), as_pillow(raw), atol=6)
    plain = adobe[: at - 4] + adobe[at + 12 :]
    rgb = np.asarray(SMALL, np.float32)
    # Stored the other way round than meant, so it comes out as the inks are.
    found = decoded(plain, WHOLE)
    assert found.mean() < 60 < rgb.mean()


def test_16_bits_are_scaled_and_keep_their_precision():
    values = np.linspace(0, 65535, 24 * 40).reshape(24, 40).astype(np.uint16)
    gray = saved(Image.fromarray(values), "PNG")
    expected = np.repeat(values[..., np.newaxis] / 257, 3, -1)
    np.testing.assert_allclose(decoded(gray, WHOLE), expected, atol=1e-4)
    pixels = np.random.default_rng(0).integers(0, 2**16, (24, 40, 4)).astype(np.uint16)
    for channels in (3, 4):
        raw = tf.io.encode_png(pixels[..., :channels])
        expected = pixels[..., :3] / 257
        np.testing.assert_allclose(decoded(raw, WHOLE), expected, atol=1e-4)
    assert decoded(raw, TINY).max() <= 255


def _moving_webp(mode):
    frames = [scene(40, 24, seed=seed).convert(mode) for seed in range(3)]
    for frame in frames[mode == "RGB" and 3 :]:
        frame.putalpha(Image.linear_gradient("L").resize(frame.size))
    options = {"save_all": True, "append_images": frames[1:], "exact": True}
    return saved(frames[0], "WEBP", lossless=True, **options)


def test_of_moving_pictures_the_first_frame_is_taken():
    frames = [scene(40, 24, seed=seed) for seed in range(3)]
    options = {"save_all": True, "append_images": frames[1:]}
    for raw in (
        saved(frames[0].quantize(32), "GIF", **options),
        _moving_webp("RGBA"),
    ):
        np.testing.assert_array_equal(decoded(raw, WHOLE), as_pillow(raw))


def test_a_first_frame_smaller_than_its_gif_is_taken_alone():
    gif = bytearray(LOSSLESS["GIF"])
    struct.pack_into("<HH", gif, 6, 50, 30)
    np.testing.assert_array_equal(
        decoded(bytes(gif), WHOLE), as_pillow(LOSSLESS["GIF"])
    )


def test_the_contents_decide_whatever_the_size():
    for raw in (*LOSSLESS.values(), *LOSSY.values()):
        for size in (TINY, LARGE):
            assert decoded(raw, size).shape == (*size, 3)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_the_camera_was(orientation, order):
    raw = with_exif(saved(SMALL, "JPEG", quality=95), exif(orientation, order=order))
    expected = as_pillow(raw)
    assert expected.shape[:2] == (TURNED if orientation > 4 else WHOLE)
    found = decoded(raw, expected.shape[:2])
    assert np.abs(found - expected).mean() < 0.5


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_turning_and_resizing_can_change_places(orientation):
    jpeg = saved(scene(160, 90), "JPEG", quality=95)
    raw = with_exif(jpeg, exif(orientation))
    pixels = as_pillow(raw)
    expected = tf.image.resize(pixels, TURNED, antialias=True)
    assert np.abs(decoded(raw, TURNED) - expected).mean() < 1.5


def test_exif_behind_other_segments_is_found():
    turned = with_exif(saved(SMALL, "JPEG"), exif(6, before=5))
    comment = b"\xff\xfe" + struct.pack(">H", 1002) + b"x" * 1000
    raw = turned[:2] + comment * 3 + turned[2:]
    assert np.abs(decoded(raw, TURNED) - as_pillow(raw)).mean() < 0.5


def _damaged():
    good = exif(6, before=2)
    yield from (good[:length] for length in range(len(good)))
    yield from (exif(value) for value in (0, 9, 255, 65535))
    yield exif(6, kind=4, order=">")  # not a short number
    yield good.replace(b"II*", b"IX*")
    yield good.replace(b"II*", b"MM*")
    for place, value in ((10, 2**31), (10, 2**32 - 1), (10, 0)):
        data = bytearray(good)
        struct.pack_into("<I", data, place, value)
        yield bytes(data)
    data = bytearray(good)
    struct.pack_into("<H", data, 14, 65535)  # many more entries than there are
    yield bytes(data)
    random = np.random.default_rng(0)
    for _ in range(40):
        yield b"Exif\0\0II*\0" + random.bytes(random.integers(0, 60))


def test_damaged_exif_turns_nothing_and_breaks_nothing():
    jpeg = saved(SMALL, "JPEG")
    upright, turned = decoded(jpeg, WHOLE), 0
    for data in _damaged():
        found = decoded(with_exif(jpeg, data), WHOLE)
        turned += not np.array_equal(found, upright)
    # Of those cut off, some still hold the whole entry; with 65,535 entries, too.
    assert turned <= 8


def _full(raw, size):
    options = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
    pixels = tf.cast(tf.io.decode_jpeg(raw, **options), tf.float32)
    return tf.image.resize(pixels, size, antialias=True).numpy()


# Widths and heights: decoded at an eighth (twice), a quarter, a half, and whole.
@pytest.mark.parametrize(
    "stored", [(800, 700), (400, 560), (320, 350), (120, 140), (90, 75)]
)
def test_a_reduced_jpeg_looks_as_the_whole_one_resized(stored):
    raw = saved(scene(*stored), "JPEG", quality=90)
    difference = np.abs(decoded(raw, LARGE) - _full(raw, LARGE))
    assert difference.mean() < 2


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((60, 80), (75, 100)),
        ((61, 80), (150, 200)),
        ((60, 81), (150, 200)),
        ((1, 1), (75, 100)),
        ((239, 1), (300, 400)),
        ((241, 240), (600, 800)),
        ((1000, 1000), (600, 800)),
    ],
)
def test_a_jpeg_is_decoded_no_larger_than_it_has_to_be(size, expected):
    raw = saved(scene(800, 600), "JPEG")
    pixels, begin, extent = reduced(raw, tf.constant(size))
    assert pixels.shape == (*expected, 3)
    np.testing.assert_array_equal(begin, [0, 0])
    np.testing.assert_array_equal(extent, expected)


def test_sides_that_cannot_be_divided_are_not_stretched():
    # A disc whose center would otherwise move by half a pixel.
    y, x = np.mgrid[0:423, 0:639]
    disc = 255 * np.exp(-((y - 390) ** 2 + (x - 600) ** 2) / 800)
    raw = saved(Image.fromarray(disc.astype(np.uint8)), "JPEG", quality=95)
    pixels, _, extent = reduced(raw, tf.constant(WHOLE))
    assert pixels.shape == (53, 80, 3)
    np.testing.assert_allclose(extent, [423 / 8, 639 / 8])
    found = decoded(raw, WHOLE)[..., 0]
    y, x = np.mgrid[0:24, 0:40] + 0.5
    center = [(axis * found).sum() / found.sum() for axis in (y, x)]
    y, x = np.mgrid[0:423, 0:639] + 0.5
    scale = ((y, 24 / 423), (x, 40 / 639))
    expected = [(axis * disc).sum() / disc.sum() * factor for axis, factor in scale]
    np.testing.assert_allclose(center, expected, atol=0.1)


def _cut(pixels, window):
    sides = np.array([*pixels.shape[:2]] * 2)
    y, x, height, width = np.round(np.array(window) * sides).astype(int)
    return pixels[y : y + height, x : x + width]


PART = (12, 10)  # of an image of 24 by 40
PARTS = [(0.25, 0.5, 0.5, 0.25), (0.5, 0, 0.5, 0.25), (0, 0.75, 0.5, 0.25)]
WINDOWS = [(0, 0, 1, 1), (0.25, 0.5, 0.5, 0.5), (0.5, 0, 0.5, 0.25), (0, 0.75, 1, 0.25)]


@pytest.mark.parametrize("window", [(0, 0, 1, 1), *PARTS])
@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WebP"])
def test_a_window_of_a_picture(kind, window):
    raw = LOSSLESS[kind]
    expected = _cut(as_pillow(raw), window)
    assert expected.shape[:2] == (PART if window in PARTS else WHOLE)
    found = decoded(raw, expected.shape[:2], window)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_window_is_one_of_the_upright_picture(orientation, window):
    jpeg = saved(scene(320, 160), "JPEG", quality=95)
    raw = with_exif(jpeg, exif(orientation))
    expected = _cut(as_pillow(raw), window)
    for size in ((80, 80), PART):  # decoded as it is stored, and smaller
        whole = tf.image.resize(expected, size, antialias=True)
        assert np.abs(decoded(raw, size, window) - whole).mean() < 1.5


def test_windows_beyond_the_border_and_of_nothing():
    for kind in ("PNG", "JPEG"):
        raw = {**LOSSLESS, **LOSSY}[kind]
        for window in ((0.9, 0.9, 0.5, 0.5), (-1, -1, 9, 9), (1, 1, 0, 0)):
            assert decoded(raw, PART, window).shape == (*PART, 3)
        corner = decoded(raw, PART, (1, 1, 0, 0))
        expected = np.broadcast_to(as_pillow(raw)[-1, -1], corner.shape)
        np.testing.assert_allclose(corner, expected, atol=8)


REFUSED = {
    "nothing": (b"", "Input is empty"),
    "three bytes": (b"\xff\xd8\xff", "JPEG"),
    "text": (b"<html>404 not found</html>", "Unknown image file format"),
    "TIFF": (encoded("TIFF"), "Unknown image file format"),
    "enormous PNG": (
        enormous_png(30_000, 30_000),
        r"too large:\] \[30000\] \[by\] \[30000\]",
    ),
    "PNG of all bits": (
        enormous_png(2**31 - 1, 2**31 - 1),
        r"too large:\] \[2147483647\]",
    ),
    "PNG of nothing": (enormous_png(0, 0), "PNG"),
    "enormous GIF": (
        gif_of([(40_000, 30_000)]),
        r"too large:\] \[40000\] \[by\] \[30000\]",
    ),
    "enormous BMP": (
        LOSSLESS["BMP"][:18]
        + struct.pack("<ii", 20_000, -30_000)
        + LOSSLESS["BMP"][26:],
        r"must be less than 2\^30",
    ),
    # It would end the process.
    "moving WebP": (_moving_webp("RGB"), "animated WebP without transparency"),
    "packed BMP": (
        LOSSLESS["BMP, palette"][:30] + b"\1" + LOSSLESS["BMP, palette"][31:],
        "compressed BMP",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name):
    raw, message = REFUSED[name]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decoded(raw, TINY)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decoded(raw, PART, (0, 0, 0.5, 0.5))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        check(raw)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_what_is_cut_off_is_refused(share):
    for raw in [*LOSSLESS.values(), *LOSSY.values()]:
        cut = raw[: int(len(raw) * share)]
        for function in (lambda raw: decoded(raw, TINY), check):
            with pytest.raises(tf.errors.InvalidArgumentError):
                function(cut)


def test_what_a_reduced_jpeg_lacks_is_noticed():
    for options in ({}, {"progressive": True}, {"subsampling": 0}):
        raw = saved(scene(400, 300), "JPEG", **options)
        for missing in (30, 200, len(raw) // 3):
            for function in (lambda raw: decoded(raw, WHOLE), check):
                with pytest.raises(tf.errors.InvalidArgumentError, match="Uncompress"):
                    function(raw[:-missing])


def test_an_enormous_jpeg_is_decoded_small():
    raw = enormous_jpeg(16_416)  # just above MAX_PIXELS
    np.testing.assert_array_equal(check(raw), [2052, 2052, 3])
    np.testing.assert_allclose(decoded(raw, TINY), 128, atol=1)


def test_an_enormous_progressive_jpeg_is_refused():
    raw = bytearray(saved(SMALL, "JPEG", progressive=True))
    frame = raw.index(b"\xff\xc2")
    struct.pack_into(">HH", raw, frame + 5, 30_000, 20_000)
    for function in (lambda raw: decoded(raw, TINY), check):
        with pytest.raises(
            tf.errors.InvalidArgumentError, match=r"\[20000\] \[by\] \[30000\]"
        ):
            function(bytes(raw))


def _ops_of(graph):
    definition = graph.graph.as_graph_def()
    nodes = [*definition.node]
    for function in definition.library.function:
        nodes += function.node_def
    return [node.op for node in nodes]


def test_only_the_graph_of_a_data_set_calls_python():
    export, data_set = (_ops_of(_graph(TINY, False, flag)) for flag in (False, True))
    assert "PyFuncStateless" in data_set and "PyFuncStateless" not in export
    assert "DecodeImage" in export and "DecodeImage" not in data_set
    # `tf.data` takes about half a millisecond for each op in every epoch.
    assert len(data_set) < 400
