import json

import numpy as np
import pytest
import tensorflow as tf

import tlkit.data
from tlkit.data import blending
from tlkit.data.augmentation import Augmentation, _changed
from tlkit.data.color import Color
from tlkit.data.example_seeds import batch_seed, example_seed, view_number
from tlkit.data.rand_augment import OPERATIONS, operation
from tlkit.errors import DataError
from tlkit.models.pictures import ImagePreprocessor

NOTHING = Augmentation(crop=None, flip=None)
ALL = Augmentation(
    crop=(0.3, 1.0),
    flip="both",
    rand_augment=(2, 9),
    color={"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    erasing=0.5,
)


SEED = [
    -1222151834,
    1133605062,
]  # of seed 7, epoch 3, example 41, in every version of TensorFlow


def only(**options):
    return Augmentation(**({"crop": None, "flip": None} | options))


def picture(number=0, height=20, width=24):
    random = np.random.default_rng(number)
    return random.integers(0, 256, (height, width, 3)).astype(np.float32)


def views(augmentation, pixels, count):
    """What becomes of one picture in that many epochs, by one traced function."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64)])
    def one(epoch):
        return augmentation.example(tf.constant(pixels), example_seed(0, epoch, 0))

    return [one(tf.constant(epoch, tf.int64)).numpy() for epoch in range(count)]


def test_seeds_are_the_same_everywhere_and_always():
    given = (tf.constant(7), tf.constant(3, tf.int64), tf.constant(41, tf.int64))
    seed = example_seed(*given)
    assert seed.dtype == tf.int32
    assert seed.shape == (2,)
    assert seed.numpy().tolist() == SEED
    assert example_seed(7, 3, 41).numpy().tolist() == SEED
    assert tf.function(example_seed)(*given).numpy().tolist() == SEED
    assert example_seed(2**62, 3, 41).numpy().tolist() != SEED


def test_no_two_examples_epochs_or_runs_have_the_same_seed():
    seeds = tf.function(example_seed, reduce_retracing=True)
    numbers = [
        (seed, epoch, index)
        for seed in range(3)
        for epoch in range(4)
        for index in range(40)
    ]
    found = [seeds(*tf.constant(each, tf.int64)).numpy() for each in numbers]
    found += [batch_seed(0, epoch, n).numpy() for epoch in range(4) for n in range(9)]
    found += [batch_seed(0, 0, n, worker=1).numpy() for n in range(9)]
    assert len({tuple(seed) for seed in found}) == len(found)
    assert len({seed[0] for seed in found}) == len(found)


def test_neighbors_have_nothing_in_common():
    @tf.function
    def draws(epoch):
        index = tf.range(2000, dtype=tf.int64)
        draw = lambda n: tf.random.stateless_uniform((), example_seed(0, epoch, n))
        return tf.map_fn(draw, index, fn_output_signature=tf.float32)

    first, second = (draws(tf.constant(n, tf.int64)).numpy() for n in (0, 1))
    limit = 4 / np.sqrt(2000)
    assert abs(first.mean() - 0.5) < limit * np.sqrt(1 / 12)
    assert abs(np.corrcoef(first, second)[0, 1]) < limit
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < limit


def test_views_take_turns():
    assert [view_number(epoch, 3) for epoch in range(7)] == [0, 1, 2, 0, 1, 2, 0]
    with pytest.raises(DataError, match="views must be an integer of 1 or more; got 0"):
        view_number(5, 0)


@pytest.mark.parametrize("parallel", [1, 4])
def test_an_example_is_the_same_in_whatever_order_and_batch_it_comes(parallel):
    pictures = np.stack([picture(n, 8, 9) for n in range(10)])
    traces = []

    def augmented(epoch, size, order):
        def change(index, pixels):
            traces.append(pixels)
            return index, ALL.example(pixels, example_seed(5, epoch, index))

        numbers = np.array(order)
        dataset = tf.data.Dataset.from_tensor_slices((numbers, pictures[numbers]))
        dataset = dataset.map(change, num_parallel_calls=parallel).batch(size)
        assert dataset.element_spec[1].shape == (None, 8, 9, 3)
        rows = dataset.unbatch().as_numpy_iterator()
        return {number: row.tobytes() for number, row in rows}

    forward = augmented(0, 4, range(10))
    assert len(traces) == 1
    backward = augmented(0, 3, range(9, -1, -1))
    assert forward == backward
    assert len(set(forward.values())) == 10
    resumed = augmented(0, 2, [7, 2])
    assert resumed == {n: forward[n] for n in (2, 7)}
    later = augmented(1, 4, range(10))
    assert not set(later.values()) & set(forward.values())


def test_eager_and_traced_are_alike():
    traced = views(ALL, picture(), 6)
    for epoch, found in enumerate(traced):
        seed = example_seed(0, epoch, 0)
        eager = _changed(ALL, tf.constant(picture()), seed, crop=True)
        np.testing.assert_allclose(eager, found, atol=1e-2)
    assert min(found.min() for found in traced) >= 0
    assert max(found.max() for found in traced) <= 255
    assert {found.dtype for found in traced} == {np.dtype("float32")}


def test_pictures_of_unknown_size():
    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.float32)])
    def change(pixels):
        return ALL.example(pixels, example_seed(0, 0, 0))

    for height, width in [(5, 9), (16, 16), (2, 3)]:
        found = change(picture(0, height, width))
        assert found.shape == (height, width, 3)
        assert np.isfinite(found).all()


def test_one_part_leaves_the_draws_of_others_as_they_are():
    flipped = views(only(flip="horizontal"), picture(), 12)
    colored = views(only(flip="horizontal", color={"brightness": 0.1}), picture(), 12)
    for one, other in zip(flipped, colored, strict=True):
        # Darker or lighter, but mirrored or not as before.
        ratio = other.sum() / one.sum()
        np.testing.assert_allclose(np.minimum(one * ratio, 255), other, atol=8)


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
    from tlkit.data.geometry import crop

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

    from tlkit.data import color

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

    from tlkit.data import color

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
    from tlkit.data import geometry

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


def blended(augmentation, pixels, labels, classes, *, epoch=0, weights=None):
    seed = batch_seed(0, epoch, 0)
    given = [tf.constant(pixels), tf.constant(labels)]
    weights = None if weights is None else tf.constant(weights, tf.float32)
    return augmentation.batch(*given, seed=seed, classes=classes, weights=weights)


def test_mix_up_is_the_convex_combination_that_labels_say():
    pixels = np.stack([picture(n, 4, 5) for n in range(6)])
    augmentation = only(mix_up=0.4)
    shares = []
    for epoch in range(40):
        found, labels, weights = blended(
            augmentation, pixels, np.arange(6), 6, epoch=epoch
        )
        assert weights is None
        assert labels.dtype == tf.float32
        np.testing.assert_allclose(tf.reduce_sum(labels, axis=1), 1, atol=1e-6)
        expected = np.einsum("ij,jhwc->ihwc", labels, pixels)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        # Two each: its own, and that of one other.
        assert ((labels.numpy() > 0).sum(axis=1) <= 2).all()
        shares += np.diag(labels).tolist()
    shares = np.array(shares)
    assert abs(shares.mean() - 0.5) < 0.08
    # The variance of the beta distribution with 0.4 and 0.4.
    assert abs(shares.var() - 1 / (4 * 1.8)) < 0.03
    assert not (shares == 1).all()


def test_cut_mix_labels_are_the_shares_of_pixels():
    pixels = np.broadcast_to(np.arange(5.0)[:, None, None, None], (5, 12, 9, 3))
    pixels = pixels.astype(np.float32)
    pasted = []
    for epoch in range(60):
        found, labels, _ = blended(
            only(cut_mix=1.0), pixels, np.arange(5), 5, epoch=epoch
        )
        counts = [[(row == n).mean() for n in range(5)] for row in found.numpy()]
        np.testing.assert_allclose(labels, counts, atol=1e-6)
        for number, row in enumerate(found.numpy()[..., 0]):
            other = row != number
            rectangle = other.any(1).sum() * other.any(0).sum()
            assert rectangle == other.sum()
            pasted.append(other.mean())
    pasted = np.array(pasted)
    # Less than the half that is drawn, since windows stick out.
    assert 0.2 < pasted.mean() < 0.45
    assert pasted.max() > 0.7
    assert (pasted < 0.05).mean() > 0.02


@pytest.mark.parametrize("options", [{"mix_up": 0.4}, {"cut_mix": 1.0}])
def test_a_blended_loss_counts_both_by_share_and_weight(options):
    pixels = np.stack([picture(n, 6, 6) for n in range(5)])
    given = np.array([1.0, 2.0, 0.0, 0.0, 0.5], np.float32)
    logits = np.random.default_rng(0).normal(size=(5, 5)).astype(np.float32)
    augmentation = only(**options)
    shares = blended(augmentation, pixels, np.arange(5), 5)[1].numpy()
    _, labels, weights = blended(augmentation, pixels, np.arange(5), 5, weights=given)
    np.testing.assert_allclose(tf.reduce_sum(labels, axis=1), 1, atol=1e-6)
    losses = weights * tf.nn.softmax_cross_entropy_with_logits(labels, logits)
    each = -np.asarray(tf.nn.log_softmax(logits))
    np.testing.assert_allclose(losses, (shares * given * each).sum(1), atol=1e-5)
    np.testing.assert_allclose(weights, shares @ given, atol=1e-6)


def test_both_kinds_of_blending_take_turns():
    pixels = np.broadcast_to([[[[0.0]]], [[[255.0]]]], (2, 8, 8, 1)).astype(np.float32)
    augmentation = only(mix_up=1.0, cut_mix=1.0)
    mixed = [
        not np.isin(
            blended(augmentation, pixels, [0, 1], 2, epoch=n)[0], [0, 255]
        ).all()
        for n in range(60)
    ]
    assert 15 < sum(mixed) < 45


def test_blending_repeats_itself_and_takes_batches_of_any_size():
    augmentation = only(mix_up=0.2, cut_mix=1.0)
    pixels = np.stack([picture(n, 6, 6) for n in range(7)])
    labels = np.arange(7, dtype=np.int32) % 3
    traces = []

    def blend(number, batch):
        traces.append(number)
        found, classes, _ = augmentation.batch(
            *batch, seed=batch_seed(1, 0, number), classes=3
        )
        return found, classes

    def run(parallel):
        dataset = tf.data.Dataset.from_tensor_slices((pixels, labels)).batch(3)
        dataset = dataset.enumerate().map(blend, num_parallel_calls=parallel)
        assert dataset.element_spec[0].shape == (None, 6, 6, 3)
        assert dataset.element_spec[1] == tf.TensorSpec((None, 3), tf.float32)
        return list(dataset.as_numpy_iterator())

    first, again = run(1), run(4)
    assert len(traces) == 2
    assert [len(x) for x, _ in first] == [3, 3, 1]
    for one, other in zip(first, again, strict=True):
        assert [part.tobytes() for part in one] == [part.tobytes() for part in other]
    # One by itself is blended with itself.
    np.testing.assert_allclose(first[2][0][0], pixels[6], atol=1e-3)
    np.testing.assert_allclose(first[2][1], [[1, 0, 0]], atol=1e-6)
    assert not np.array_equal(first[0][0], pixels[:3])


def test_labels_that_are_shares_already():
    labels = np.array([[0.9, 0.1, 0.0], [0.0, 0.5, 0.5]], np.float32)
    pixels = np.stack([picture(n, 3, 3) for n in range(2)])
    _, found, _ = blended(only(mix_up=1.0), pixels, labels, 3)
    share = found[0, 0] / 0.9
    expected = share * labels[0] + (1 - share) * labels[1]
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    column = blending.one_hot(tf.constant([[2], [0]]), 3)
    np.testing.assert_array_equal(column, [[0, 0, 1], [1, 0, 0]])
    for wrong in (tf.constant([0.5, 1.5]), tf.zeros((2, 4)), tf.constant([["a"]])):
        with pytest.raises(DataError, match="MixUp and CutMix blend classes"):
            blending.one_hot(wrong, 3)
    with pytest.raises(DataError, match="CutMix needs pictures"):
        blended(only(cut_mix=1.0), np.zeros((2, 5), np.float32), [0, 1], 2)
    features, _, _ = blended(only(mix_up=1.0), np.eye(2, dtype=np.float32), [0, 1], 2)
    np.testing.assert_allclose(tf.reduce_sum(features, axis=1), 1, atol=1e-6)


def test_nothing_is_nothing():
    assert NOTHING.is_nothing
    assert only(color=0.0).is_nothing
    assert not NOTHING.changes_examples
    assert not NOTHING.blends
    pixels = tf.constant(picture())
    assert NOTHING.example(pixels, example_seed(0, 0, 0)) is pixels
    labels, weights = tf.constant([1, 0]), tf.constant([1.0, 2.0])
    found = NOTHING.batch(
        pixels, labels, seed=batch_seed(0, 0, 0), classes=2, weights=weights
    )
    assert found[0] is pixels
    assert found[1] is labels
    assert found[2] is weights


def test_what_there_is_by_default_and_what_does_what():
    mild = Augmentation()
    assert mild == Augmentation(crop=(0.6, 1), flip="horizontal")
    assert (mild.changes_examples, mild.blends, mild.is_nothing) == (True, False, False)
    blends = only(mix_up=0.2)
    assert (blends.changes_examples, blends.blends) == (False, True)
    assert not blends.is_nothing
    for options in ({"erasing": 0.1}, {"color": 0.1}, {"rand_augment": (1, 0)}):
        assert only(**options).changes_examples
    assert only(color=0.2).color == Color(0.2, 0.2, 0.2)
    assert len({mild, Augmentation(), ALL}) == 2


def test_it_is_made_again_from_plain_values():
    for augmentation in (ALL, NOTHING, Augmentation(), only(mix_up=0.2, cut_mix=1)):
        config = json.loads(json.dumps(augmentation.to_config()))
        assert Augmentation(**config) == augmentation


def test_a_sheet_to_be_looked_at():
    pictures = np.stack([picture(n, 6, 5) for n in range(3)]).astype(np.uint8)
    sheet = Augmentation().show(pictures, epochs=4, seed=3)
    assert sheet.shape == (3 * 6, 5 * 5, 3)
    assert sheet.dtype == tf.uint8
    np.testing.assert_array_equal(sheet[:, :5], pictures.reshape(18, 5, 3))
    pixels = tf.cast(pictures[1], tf.float32)
    changed = Augmentation().example(pixels, example_seed(3, 2, 1))
    np.testing.assert_array_equal(
        sheet[6:12, 15:20], tf.cast(tf.round(changed), "uint8")
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"flip": "left"},
            'flip must be "horizontal", "vertical", "both" or None; got',
        ),
        ({"crop": 0.5}, r"crop must be .* got 0.5. Type: crop=\(0.6, 1.0\)"),
        ({"crop": (0.0, 1.0)}, "above 0 and up to 1"),
        ({"crop": (0.8, 0.4)}, r"got \(0.8, 0.4\)"),
        ({"crop": (0.5, float("nan"))}, "crop must be"),
        ({"crop": ("a", 1)}, "crop must be"),
        ({"rand_augment": (0, 9)}, r"from 0 to 10, or None; got \(0, 9\)"),
        ({"rand_augment": (2, 11)}, r"Type: rand_augment=\(2, 9\)"),
        ({"rand_augment": (2.5, 9)}, "rand_augment must be how many"),
        ({"rand_augment": True}, "got True"),
        ({"color": 1.5}, r"color must be a number from 0 \(off\) to 1; got 1.5"),
        ({"color": {"hue": 0.7}}, r"hue must be a number from 0 \(off\) to 0.5; got"),
        ({"color": {"tint": 0.1}}, "brightness, contrast, saturation, hue; got tint"),
        ({"color": "strong"}, "got 'strong'"),
        ({"erasing": -0.1}, r"erasing must be a number from 0 \(off\) to 1; got -0.1"),
        ({"mix_up": -1}, r"mix_up must be 0 \(off\) or a positive number"),
        ({"cut_mix": float("inf")}, "got inf. Type: cut_mix=0.2"),
        ({"cut_mix": None}, "got None"),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(DataError, match=message):
        Augmentation(**options)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4, 1), "f4"),
        np.zeros((2, 4, 4, 3), "f4"),
    ],
)
def test_wrong_pictures(pixels):
    with pytest.raises(DataError, match=r"float32 \[height, width, 3\] in 0…255"):
        Augmentation().example(pixels, example_seed(0, 0, 0))


def test_public_names():
    assert tlkit.data.Augmentation is Augmentation
    assert tlkit.data.Color is Color
