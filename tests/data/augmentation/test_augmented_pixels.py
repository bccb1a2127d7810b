import numpy as np
import pytest
import tensorflow as tf

from tests.data.augmentation.augmented import only, picture, views
from tlkit.data import Augmentation
from tlkit.data.augmentation.example_seeds import example_seed
from tlkit.data.augmentation.rand_augment import OPERATIONS, operation
from tlkit.models.preprocessors import ImagePreprocessor


@pytest.mark.parametrize("direction", ["horizontal", "vertical", "both"])
def test_flips_are_mirror_images(direction):
    pixels = picture()
    mirrored = {
        "none": pixels,
        "horizontal": pixels[:, ::-1],
        "vertical": pixels[::-1],
        "both": pixels[::-1, ::-1],
    }
    allowed = list(mirrored) if direction == "both" else ["none", direction]
    names = {value.tobytes(): name for name, value in mirrored.items()}
    found = [names[view.tobytes()] for view in views(only(flip=direction), pixels, 200)]
    assert set(found) == set(allowed)
    for name in allowed:
        assert abs(found.count(name) / 200 - 1 / len(allowed)) < 0.14


def draw_windows(height, width, count=500, **options):
    augmentation = Augmentation(**options)

    @tf.function
    def draw(index):
        seed = example_seed(0, 0, index)
        return augmentation.window(seed, height=height, width=width)

    return np.stack([draw(tf.constant(n, tf.int64)) for n in range(count)]).T


@pytest.mark.parametrize(("height", "width"), [(224, 224), (300, 400), (500, 420)])
def test_windows_have_the_areas_and_aspects_they_should(height, width):
    top, left, high, wide = draw_windows(height, width, crop=(0.2, 0.7))
    area, aspect = high * wide, wide * width / (high * height)
    # Evenly: the share of windows below each area is as far as it is in the range.
    evenly = (np.arange(500) + 0.5) / 500
    np.testing.assert_allclose((np.sort(area) - 0.2) / 0.5, evenly, atol=0.08)
    assert aspect.min() > 3 / 4 - 1e-4
    assert aspect.max() < 4 / 3 + 1e-4
    assert aspect.min() < 0.8
    assert aspect.max() > 1.25
    for start, length in ((top, high), (left, wide)):
        assert (start >= 0).all()
        assert (start + length <= 1 + 1e-6).all()
        place = start / np.maximum(1 - length, 1e-9)
        np.testing.assert_allclose(np.sort(place), evenly, atol=0.08)


def test_windows_of_narrow_pictures_keep_their_areas():
    _, left, high, wide = draw_windows(10, 1000, count=100, crop=(0.4, 0.6))
    np.testing.assert_allclose(high, 1, atol=1e-5)  # no such picture has an aspect of 1
    assert 0.4 - 1e-5 < wide.min() < wide.max() < 0.6 + 1e-5
    top, _, high, wide = draw_windows(1000, 10, count=100, crop=(0.4, 0.6))
    np.testing.assert_allclose(wide, 1, atol=1e-5)
    assert 0.4 - 1e-5 < high.min() < high.max() < 0.6 + 1e-5
    whole = draw_windows(20, 20, count=5, crop=(1.0, 1.0))
    np.testing.assert_allclose(whole.T, [[0, 0, 1, 1]] * 5, atol=1e-5)
    none = draw_windows(20, 30, count=2, crop=None)
    np.testing.assert_array_equal(none.T, [[0, 0, 1, 1]] * 2)


def test_the_crop_shows_the_window():
    rows, columns = np.meshgrid(np.arange(40), np.arange(60), indexing="ij")
    pixels = np.stack([rows, columns, rows * 0], axis=-1).astype(np.float32)
    augmentation = only(crop=(0.3, 0.6))
    for epoch, found in enumerate(views(augmentation, pixels, 10)):
        seed = example_seed(0, epoch, 0)
        top, left, high, wide = augmentation.window(seed, height=40, width=60).numpy()
        # Where the middles of pixels lie; at the borders of the picture it cannot know.
        down = (top + high * (np.arange(40) + 0.5) / 40) * 40 - 0.5
        across = (left + wide * (np.arange(60) + 0.5) / 60) * 60 - 0.5
        expected = np.clip(down, 0, 39)
        np.testing.assert_allclose(found[:, 30, 0], expected, atol=1e-3)
        np.testing.assert_allclose(found[20, :, 1], np.clip(across, 0, 59), atol=1e-3)
        done = augmentation.example(tf.constant(pixels), seed, crop=False)
        np.testing.assert_array_equal(done, pixels)


def test_the_crop_resamples_as_resizing_does():
    from tlkit.data.augmentation.geometry import crop

    pixels = tf.constant(picture(0, 40, 40))
    np.testing.assert_array_equal(crop(pixels, tf.constant([0.0, 0, 1, 1])), pixels)
    found = crop(pixels, tf.constant([0.25, 0.5, 0.5, 0.25]))
    resized = tf.image.resize(pixels[10:30, 20:30], (40, 40), antialias=True)
    # Resizing knows nothing of what is around the window.
    inner = (slice(2, -2), slice(3, -3))
    np.testing.assert_allclose(found[inner], resized[inner], atol=1e-3)


def test_a_window_can_be_cut_out_while_decoding():
    smooth = tf.image.resize(picture(0, 4, 5), (90, 120), method="bicubic")
    raw = tf.io.encode_png(tf.saturate_cast(smooth, tf.uint8))
    prepare = ImagePreprocessor(32, 32)
    augmentation = Augmentation(crop=(0.3, 0.5), color=0.2)
    for epoch in range(5):
        seed = example_seed(0, epoch, 0)
        window = augmentation.window(seed, height=32, width=32)
        cut = augmentation.example(prepare.cropped(raw, window), seed, crop=False)
        late = augmentation.example(prepare(raw), seed)
        assert np.abs(cut - late).mean() < 4
        assert np.abs(cut - prepare(raw)).mean() > 10


def test_color_stays_in_range_and_near():
    pixels = picture() / 2 + 64  # far from being cut off
    for found in views(only(color={"brightness": 0.2}), pixels, 50):
        factor = found.mean() / pixels.mean()
        assert 0.8 <= factor <= 1.2
        np.testing.assert_allclose(found, pixels * factor, rtol=1e-4)
    weights = [0.299, 0.587, 0.114]
    for found in views(only(color={"contrast": 0.2}), pixels, 50):
        means = [(found @ weights).mean(), (pixels @ weights).mean()]
        assert means[0] == pytest.approx(means[1], abs=0.01)
        assert 0.8 <= found.std() / pixels.std() <= 1.25
    for found in views(only(color={"saturation": 0.2}), pixels, 50):
        np.testing.assert_allclose(found @ weights, pixels @ weights, atol=0.1)
    for found in views(only(color={"hue": 0.2}), pixels, 50):
        np.testing.assert_allclose(found.max(-1), pixels.max(-1), atol=0.1)
        np.testing.assert_allclose(found.min(-1), pixels.min(-1), atol=0.1)
    changed = views(only(color=0.8), picture(), 50)
    assert min(found.min() for found in changed) == 0
    assert max(found.max() for found in changed) == 255
    means = [found.mean() for found in changed]
    assert np.ptp(means) > 60
    assert len({found.tobytes() for found in changed}) == 50


@pytest.mark.parametrize("factor", [0.1, 0.6, 1.0, 1.4, 1.9])
def test_colors_change_as_in_pillow(factor):
    pillow = pytest.importorskip("PIL.Image")
    from PIL import ImageEnhance

    from tlkit.data.augmentation import color

    pixels = tf.image.resize(picture(3, 6, 6), (24, 30)).numpy().round()
    image = pillow.fromarray(pixels.astype(np.uint8))
    for function, enhance in [
        (color.brighten, ImageEnhance.Brightness),
        (color.contrast, ImageEnhance.Contrast),
        (color.saturate, ImageEnhance.Color),
        (color.sharpen, ImageEnhance.Sharpness),
    ]:
        expected = np.asarray(enhance(image).enhance(factor), np.float32)
        # It rounds what it takes the pixels away from, and then the pixels.
        np.testing.assert_allclose(function(pixels, factor), expected, atol=2)


def test_tables_of_values_are_those_of_pillow():
    pillow = pytest.importorskip("PIL.Image")
    from PIL import ImageOps

    from tlkit.data.augmentation import color

    dim = (picture(1, 40, 30) / 3 + [0, 40, 90]).round().astype(np.float32)
    image = pillow.fromarray(dim.astype(np.uint8))
    as_numbers = lambda image: np.asarray(image, np.float32)
    equalized = as_numbers(ImageOps.equalize(image))
    np.testing.assert_array_equal(color.equalize(dim), equalized)
    stretched = as_numbers(ImageOps.autocontrast(image))
    np.testing.assert_allclose(color.stretch_contrast(dim), stretched, atol=1.01)
    for bits in (4, 7):
        expected = as_numbers(ImageOps.posterize(image, bits))
        np.testing.assert_array_equal(color.posterize(dim, bits), expected)
    for threshold in (0, 70, 255):
        expected = as_numbers(ImageOps.solarize(image, threshold))
        np.testing.assert_array_equal(color.solarize(dim, threshold), expected)
    flat = np.full((8, 8, 3), 7, np.float32)
    np.testing.assert_array_equal(color.equalize(flat), flat)
    np.testing.assert_array_equal(color.stretch_contrast(flat), flat)


def test_pictures_turn_as_in_pillow():
    pillow = pytest.importorskip("PIL.Image")
    from tlkit.data.augmentation import geometry

    pixels = tf.image.resize(picture(3, 5, 5), (41, 31)).numpy().round()
    project = lambda matrix: geometry.project(pixels, tf.constant(matrix, tf.float32))
    image = pillow.fromarray(pixels.astype(np.uint8))
    bilinear = pillow.Resampling.BILINEAR
    middle = (slice(13, -13), slice(10, -10))
    for degrees in (-25, 10):
        expected = np.asarray(image.rotate(degrees, bilinear), np.float32)
        cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        found = project([[cosine, -sine, 0], [sine, cosine, 0]])
        np.testing.assert_allclose(found[middle], expected[middle], atol=1.1)
    for across, down in ((0.2, 0.0), (0.0, -0.3)):
        # From the middle of the picture, where Pillow counts from its corner.
        matrix = (1, across, -across * 41 / 2, down, 1, -down * 31 / 2)
        sheared = image.transform(image.size, pillow.Transform.AFFINE, matrix, bilinear)
        found = project([[1, across, 0], [down, 1, 0]])
        expected = np.asarray(sheared, np.float32)
        np.testing.assert_allclose(found[middle], expected[middle], atol=1.1)
    moved = project([[1, 0, -10 / 31], [0, 1, 0]])
    np.testing.assert_allclose(moved[:, 10:], pixels[:, :-10], atol=1e-2)
    np.testing.assert_array_equal(moved[:, :9], np.full((41, 9, 3), 128))
    moved = project([[1, 0, 0], [0, 1, 4 / 41]])
    np.testing.assert_allclose(moved[:-4], pixels[4:], atol=1e-2)


FREE = ("none", "autocontrast", "equalize")


def operations(pixels, strength):
    """What every operation makes of a picture, by its name and sign."""

    @tf.function
    def one(choice, sign):
        return operation(tf.constant(pixels), choice, strength=strength, sign=sign)

    return {
        (name, sign): one(tf.constant(choice), tf.constant(sign)).numpy()
        for choice, name in enumerate(OPERATIONS)
        for sign in (-1.0, 1.0)
    }


def test_every_operation_of_rand_augment():
    pixels = (tf.image.resize(picture(2, 5, 5), (24, 24)) * 0.8 + 20).numpy()
    nothing, much, more = (operations(pixels, strength) for strength in (0, 0.3, 1))
    for key, value in nothing.items():
        if key[0] not in FREE[1:]:
            np.testing.assert_allclose(value, pixels, atol=1e-3, err_msg=str(key))
        assert more[key].min() >= 0
        assert more[key].max() <= 255
        if key[0] not in FREE:
            change = [np.abs(found[key] - pixels).mean() for found in (much, more)]
            assert 0.3 < change[0] < change[1], key
    different = {value.tobytes() for (name, _), value in more.items()}
    # Five know no sign.
    assert len(different) == 2 * len(OPERATIONS) - 5
    assert more["brighten", 1.0].mean() > pixels.mean() > more["brighten", -1.0].mean()
    np.testing.assert_allclose(more["solarize", 1.0], 255 - pixels)
    across = round(0.45 * 24, 1)
    assert (more["shift across", 1.0][:, -int(across) :] == 128).all()
    assert (more["shift down", -1.0][: int(across)] == 128).all()


def test_rand_augment_draws_from_all_operations():
    pixels = (tf.image.resize(picture(2, 5, 5), (16, 16)) * 0.8 + 20).numpy()
    expected = operations(pixels, 0.9)
    found = []
    for view in views(only(rand_augment=(1, 9)), pixels, 280):
        near = {key: np.abs(view - value).max() for key, value in expected.items()}
        found.append(min(near, key=near.get))
        assert near[found[-1]] < 0.01
    names = [name for name, _ in found]
    assert all(7 <= names.count(name) <= 36 for name in OPERATIONS)
    signs = [sign for name, sign in found if name in ("rotate", "brighten", "sharpen")]
    assert 0.25 < signs.count(1.0) / len(signs) < 0.75
    twice = views(only(rand_augment=(2, 9)), pixels, 60)
    both = [min(np.abs(v - x).max() for x in expected.values()) > 1 for v in twice]
    assert sum(both) > 30


def test_erasing_fills_as_many_pixels_as_it_should():
    pixels = np.full((40, 40, 3), 300.0, np.float32)
    found = views(only(erasing=0.5), pixels, 300)
    erased = np.array([(view[..., 0] != 300).mean() for view in found])
    assert abs((erased > 0).mean() - 0.5) < 0.1
    shares = erased[erased > 0]
    assert 0.015 < shares.min() < 0.05
    assert 0.28 < shares.max() < 0.36  # of whole pixels
    assert abs(shares.mean() - (0.02 + 1 / 3) / 2) < 0.03
    for view in found[:30]:
        changed = (view != 300).all(-1)
        np.testing.assert_array_equal(changed, (view != 300).any(-1))
        rows, columns = changed.any(1), changed.any(0)
        assert rows.sum() * columns.sum() == changed.sum()  # a rectangle
    noise = np.concatenate([view[view != 300] for view in found])
    assert noise.min() >= 0
    assert noise.max() <= 255
    assert abs(noise.mean() - 127.5) < 1
    every = views(only(erasing=1.0), pixels, 20)
    assert all((view != 300).any() for view in every)
