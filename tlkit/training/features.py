"""Features of all examples, computed once and kept until the encoder changes."""

from __future__ import annotations

import keras

from .. import models, reports
from .collecting import collect
from .evaluation import evaluate_feed
from .feeds import Feed
from .proof import checksums
from .rows import tensor_rows
from .running import Run


class Features:
    """What the encoder makes of the examples.

    Args:
        run: The run.
        feeds: Those of training and of validation, or `None`.
    """

    def __init__(self, run: Run, feeds: list[Feed | None]):
        self.run, self.feeds = run, feeds
        self._kept: list[Feed | None] = []
        self._checksums: tuple[int, ...] = ()

    def top_and_feeds(self) -> tuple[keras.Model, list[Feed | None]]:
        """The top of the model, and feeds with features instead of inputs."""
        trunk, top = models.split(self.run.model)
        if not self._hold(trunk):
            self._checksums = checksums(trunk.weights)
            names = ("computing features", "computing features of the validation data")
            self._kept = [
                feed and self._with_features(trunk, feed, what)
                for feed, what in zip(self.feeds, names, strict=True)
            ]
        return top, self._kept

    def best(self) -> tuple[keras.Model, list[Feed | None]]:
        """The top and features if there are some that hold, else model and inputs."""
        if self._kept and self._hold(models.split(self.run.model)[0]):
            return self.top_and_feeds()
        return self.run.model, self.feeds

    def _hold(self, trunk: keras.Model) -> bool:
        """Whether there are features, and the encoder is as it was for them."""
        return bool(self._kept) and checksums(trunk.weights) == self._checksums

    def _with_features(self, trunk, feed: Feed, what: str) -> Feed:
        found = collect(trunk, feed, what=what, verbose=self.run.verbose)
        features, labels, weights = found
        return feed.with_rows(tensor_rows(features), labels, weights)


def final_evaluation(run: Run, features: Features) -> dict[str, reports.Evaluation]:
    """What the report says of the validation data, if it is a classification."""
    if models.task_of(run.model) is None:
        return {}
    part, (_, validation) = features.best()
    found = evaluate_feed(
        run.model, part, validation, run.setting.objective, verbose=run.verbose
    )
    return {"validation": found}
