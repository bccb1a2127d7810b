import json

import numpy as np
import pytest
import tensorflow as tf

import tlkit.data
from tests.data.augmentation.augmented import only, picture, views
from tlkit.data.augmentation.augmentation import Augmentation, _changed
from tlkit.data.augmentation.color import Color
from tlkit.data.augmentation.example_seeds import batch_seed, example_seed, view_number
from tlkit.errors import DataError

NOTHING = Augmentation(crop=None, flip=None)
ALL = Augmentation(
    crop=(0.3, 1.0),
    flip="both",
    rand_augment=(2, 9),
    color={"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.1},
    erasing=0.5,
)


# Of seed 7, epoch 3, example 41, in every version of TensorFlow.
SEED = [-1222151834, 1133605062]


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


def test_an_example_is_the_same_in_whatever_order_and_batch_it_comes():
    pictures = np.stack([picture(n, 8, 9) for n in range(10)])
    traces = []

    def augmented(epoch, size, order, parallel=1):
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
    backward = augmented(0, 3, range(9, -1, -1), parallel=4)
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


def test_without_operations_nothing_changes():
    assert not only(color=0.0).changes_examples
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
    assert (mild.changes_examples, mild.blends) == (True, False)
    blends = only(mix_up=0.2)
    assert (blends.changes_examples, blends.blends) == (False, True)
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
        ({"rand_augment": (2.5, 9)}, "rand_augment must be the number of"),
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
