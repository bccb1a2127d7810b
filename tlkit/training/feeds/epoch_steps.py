"""Epochs of a given number of batches: `steps_per_epoch` of `fit`.

Tested in tests/training/feeds/test_epoch_steps.py.
"""

import math

from ...errors import DataError
from .dataset_feed import DatasetFeed
from .feed import Feed, WrappedFeed
from .fit_inputs import count_steps


class ContinuedFeed(WrappedFeed):
    """A feed whose epochs continue one pass over endless data, as in Keras.

    Args:
        feed: Endless data.
        steps: The number of batches in an epoch; infinity if the phase's `steps`
            decides.
        first: The number of the run's batches before the first batch of this data.
    """

    def __init__(self, feed: Feed, steps: int | float, *, first: int = 0):
        super().__init__(feed)
        self.steps, self.first, self.continues = steps, first, True

    def batches(self, epoch, *, skip=0, part=None):
        if epoch is None:
            return super().batches(None, skip=skip, part=part)
        return super().batches(0, skip=max(0, skip - self.first), part=part)


class PartedFeed(WrappedFeed):
    """A feed that divides each pass over the data into several epochs.

    Args:
        feed: A feed that can skip batches without reading them.
        steps: The number of batches in an epoch, a divisor of the feed's `steps`.
    """

    def __init__(self, feed: Feed, steps: int):
        super().__init__(feed)
        self.parts, self.steps = feed.steps // steps, steps

    def batches(self, epoch, *, skip=0, part=None):
        if epoch is None:
            return super().batches(None, skip=skip, part=part)
        number, rest = divmod(epoch, self.parts)
        begin = rest * self.steps + skip
        batches = super().batches(number, skip=begin, part=part)
        return batches.take(self.steps - skip)

    def with_inputs(self, rows, labels, weights, *, views=1):
        feed = super().with_inputs(rows, labels, weights, views=views)
        return PartedFeed(feed, self.steps)


def with_steps(feed: Feed, steps: int | None, *, first_epoch: int = 0) -> Feed:
    """Returns a feed whose epochs have `steps` batches, as `steps_per_epoch` of Keras.

    Every epoch goes on where the one before ended. A dataset of unknown length begins
    again at its end.

    Args:
        feed: The feed of the training examples, before it is weighted or blended.
        steps: `steps_per_epoch` of `fit`, or `None`.
        first_epoch: The number of the run's first epoch.

    Raises:
        DataError: `steps` does not divide the number of batches. (In Keras, an epoch
            would end early.)
    """
    if steps is None:
        return ContinuedFeed(feed, math.inf) if feed.steps == math.inf else feed
    is_dataset = type(feed) is DatasetFeed
    if not is_dataset and feed.steps is None:
        feed = count_steps(feed)
    if feed.steps not in (None, math.inf) and feed.steps % steps:
        repeat = "repeat the dataset (x.repeat()), or " if is_dataset else ""
        divisors = [n for n in range(1, feed.steps + 1) if feed.steps % n == 0]
        nearest = min(divisors, key=lambda n: abs(n - steps))
        raise DataError(
            f"steps_per_epoch={steps} does not divide the {feed.steps} batches of the "
            f"training data, so an epoch would end early. Leave it out, or {repeat}"
            f"type steps_per_epoch={nearest}."
        )
    if feed.steps == steps and not is_dataset:
        return feed
    if is_dataset:
        feed = feed.repeated()
    if feed.steps == math.inf:
        return ContinuedFeed(feed, steps, first=first_epoch * steps)
    return PartedFeed(feed, steps)
