"""Joins several augmented views of all examples, one after the other, to cache them.

Tested in tests/training/feeds/test_feeds.py.
"""

import tensorflow as tf

from .feed import Feed, WrappedFeed


class StackedViewsFeed(WrappedFeed):
    """A feed of several augmented views of all examples, one after the other.

    `with_inputs` returns a feed that has each example once per epoch, and whose epochs
    take turns with the views.

    Args:
        feed: A feed of augmented images.
        views: How many views, at least 1.
    """

    def __init__(self, feed: Feed, views: int):
        super().__init__(feed)
        self.views = views
        self.steps, self.examples = feed.steps * views, feed.examples * views

    def batches(self, epoch, *, skip=0, part=None):
        dataset = self.feed.view(0)
        for number in range(1, self.views):
            dataset = dataset.concatenate(self.feed.view(number))
        return dataset.skip(skip)

    def with_inputs(self, rows, labels, weights, *, views=1):
        first = lambda array: array[: self.feed.examples]
        labels, weights = tf.nest.map_structure(first, (labels, weights))
        return self.feed.with_inputs(rows, labels, weights, views=self.views)

    def digest(self):
        return f"{super().digest()} {self.views}"


def stacked(feed: Feed, views: int) -> Feed:
    """Stacks views of a feed; a feed that is not augmented is returned unchanged."""
    return StackedViewsFeed(feed, views) if feed.has_views else feed
