import numpy as np
import pytest
import tensorflow as tf

from tests.data.augmentation.augmented import only, picture
from tlkit.data.augmentation import mixup
from tlkit.data.augmentation.example_seeds import batch_seed
from tlkit.errors import DataError


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
    column = mixup.one_hot(tf.constant([[2], [0]]), 3)
    np.testing.assert_array_equal(column, [[0, 0, 1], [1, 0, 0]])
    for wrong in (tf.constant([0.5, 1.5]), tf.zeros((2, 4)), tf.constant([["a"]])):
        with pytest.raises(DataError, match="MixUp and CutMix blend classes"):
            mixup.one_hot(wrong, 3)
    with pytest.raises(DataError, match="CutMix needs images"):
        blended(only(cut_mix=1.0), np.zeros((2, 5), np.float32), [0, 1], 2)
    features, _, _ = blended(only(mix_up=1.0), np.eye(2, dtype=np.float32), [0, 1], 2)
    np.testing.assert_allclose(tf.reduce_sum(features, axis=1), 1, atol=1e-6)
