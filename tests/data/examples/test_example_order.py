"""Which examples come together, and when."""

import numpy as np
import pytest
import tensorflow as tf

import tlkit.data
from tlkit.data.examples.example_order import WINDOW, mixed_seed, order
from tlkit.data.examples.random_access import tensor_examples
from tlkit.errors import DataError


def _places(found):
    return found.rows[found.rows >= 0].tolist()


def _numbers(count):
    dataset = tf.data.Dataset.range(count)
    return dataset.map(lambda n: (tf.cast(n, tf.float32), tf.cast(n, tf.int32)))


def _streamed(count, **options):
    """The labels in each batch of `tlkit.data.examples.batches`, and what fills up."""
    dataset = tlkit.data.batches(_numbers(count), None, **options)
    return [[part.numpy().tolist() for part in parts[1:]] for parts in dataset]


def test_without_shuffling_the_order_is_that_of_the_data():
    found = order(7, batch_size=3)
    assert found.rows.tolist() == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]
    assert found.present.tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0]]
    assert found.rows.dtype == np.int64 and found.present.dtype == np.float32


@pytest.mark.parametrize("buffer", [None, 1, 5, 100])
@pytest.mark.parametrize("lengths", [None, np.arange(50) % 7])
def test_every_example_comes_once(buffer, lengths):
    found = order(
        50, batch_size=8, shuffle=True, seed=3, buffer=buffer, lengths=lengths
    )
    assert sorted(_places(found)) == list(range(50))
    assert found.present.sum() == 50
    assert found.rows.shape == (7, 8)


def test_an_order_depends_on_seed_and_epoch_alone():
    options = {"batch_size": 8, "shuffle": True}
    first = order(40, seed=1, epoch=2, **options)
    again = order(40, seed=1, epoch=2, **options)
    assert first.rows.tolist() == again.rows.tolist()
    assert _places(first) != list(range(40))
    assert _places(first) != _places(order(40, seed=2, epoch=1, **options))
    assert _places(first) != _places(order(40, seed=1, epoch=3, **options))


def test_the_global_seed_changes_no_order_and_stays():
    """Notices when TensorFlow keeps it elsewhere than where `shuffled` puts it away."""
    options = {"batch_size": 8, "shuffle": True, "seed": 1}
    right, batches = order(40, **options), _streamed(40, **options)
    tf.random.set_seed(1)
    try:
        assert order(40, **options).rows.tolist() == right.rows.tolist()
        assert _streamed(40, **options) == batches
        drawn = tf.random.uniform([])
        tf.random.set_seed(1)
        assert order(40, **options).rows.tolist() == right.rows.tolist()
        assert tf.random.uniform([]) == drawn
    finally:
        tf.random.set_seed(None)


@pytest.mark.parametrize("count, batch_size", [(23, 4), (24, 4), (3, 8), (1, 1)])
def test_the_order_is_that_of_streamed_batches(count, batch_size):
    for epoch in (0, 5):
        options = {"batch_size": batch_size, "shuffle": True, "seed": 9, "epoch": epoch}
        found = order(count, **options)
        expected = [labels for (labels,) in _streamed(count, **options)]
        assert [[p for p in row if p >= 0] for row in found.rows.tolist()] == expected


def test_a_buffer_shuffles_as_that_of_a_stream():
    tf.random.set_seed(None)  # a stream's order depends on it, and ours does not
    numbers = tf.data.Dataset.range(30)
    expected = numbers.shuffle(4, mixed_seed(2, 1), reshuffle_each_iteration=False)
    found = order(30, batch_size=6, shuffle=True, seed=2, epoch=1, buffer=4)
    assert _places(found) == [int(n) for n in expected]
    assert _places(found)[0] < 4


@pytest.mark.parametrize("count", [21, 24])
@pytest.mark.parametrize("shuffle", [False, True])
def test_shares_make_up_the_batch_and_are_those_of_a_stream(count, shuffle):
    options = {"batch_size": 6, "shuffle": shuffle, "seed": 4, "fill": 3}
    whole = order(count, **options)
    shares = [order(count, workers=3, worker=k, **options) for k in range(3)]
    assert {share.rows.shape for share in shares} == {(whole.rows.shape[0], 2)}
    for part in ("rows", "present"):
        merged = np.stack([getattr(share, part) for share in shares], axis=-1)
        flat = merged.reshape(len(merged), -1)
        assert flat.tolist() == getattr(whole, part).tolist()
    for k, share in enumerate(shares):
        expected = _streamed(count, workers=3, worker=k, **options)
        pairs = zip(share.rows, share.present, strict=True)
        given = [(r[r >= 0].tolist(), p[r >= 0].tolist()) for r, p in pairs]
        assert given == [(labels, present) for labels, present in expected]


def test_what_fills_up_is_marked_and_stands_at_the_end():
    found = order(7, batch_size=4, fill=4)
    assert found.rows.tolist() == [[0, 1, 2, 3], [4, 5, 6, 0]]
    assert found.present.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    found = order(2, batch_size=8, fill=5)  # more than there are
    assert found.rows.tolist() == [[0, 1, 0, 1, 0, -1, -1, -1]]
    assert found.present.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]]


def test_texts_of_similar_lengths_come_together():
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    options = {"batch_size": 4, "shuffle": True, "seed": 1}
    found = order(1000, lengths=lengths, **options)
    mixed = order(1000, **options)

    def padding(rows):
        batches = [lengths[row[row >= 0]] for row in rows]
        return sum((batch.max() - batch).sum() for batch in batches)

    assert padding(found.rows) < 0.1 * padding(mixed.rows)
    # The first 128 of the shuffled examples are spread over the epoch.
    first = set(mixed.rows[:WINDOW].ravel().tolist())
    batches = [i for i, row in enumerate(found.rows) if set(row.tolist()) <= first]
    assert len(batches) == WINDOW
    assert max(batches) - min(batches) > 2 * WINDOW
    assert order(1000, lengths=lengths, batch_size=4).rows[0].tolist() == [0, 1, 2, 3]


def test_equal_lengths_leave_examples_in_their_batches():
    options = {"batch_size": 4, "shuffle": True, "seed": 1}
    plain = order(30, **options).rows.tolist()
    found = order(30, lengths=np.full(30, 9), **options).rows.tolist()
    assert sorted(plain) == sorted(found)


def test_data_with_access_is_read_in_the_same_order():
    options = {"batch_size": 4, "shuffle": True, "seed": 7, "epoch": 3}
    examples = tensor_examples(np.arange(19, dtype=np.float32), np.arange(19))
    dataset = examples.dataset()
    found = [
        y.numpy().tolist() for _, y in tlkit.data.batches(dataset, None, **options)
    ]
    assert found == [labels for (labels,) in _streamed(19, **options)]
    skipped = tlkit.data.batches(dataset, None, skip=2, **options)
    assert [y.numpy().tolist() for _, y in skipped] == found[2:]


def test_seeds_are_mixed_and_not_negative():
    seeds = {mixed_seed(seed, epoch) for seed in range(20) for epoch in range(20)}
    assert len(seeds) == 400 and min(seeds) >= 0 and max(seeds) < 2**63
    with pytest.raises(DataError):
        mixed_seed(-1, 0)
