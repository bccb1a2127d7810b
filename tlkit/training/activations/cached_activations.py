"""What frozen blocks give is kept from phase to phase, as long as it holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import keras
import numpy as np

from ... import models, reports
from ...models import FEATURES, lower_weights, upper_half
from ..evaluation import evaluate_feed
from ..feeds.augmented import stacked
from ..feeds.feed import Feed
from ..loop.display import say
from ..loop.frozen_check import checksums
from ..loop.run import Run
from ..plans.cache_plan import ActivationCache, Kept
from ..plans.plan import Plan
from ..plans.trainable_selection import choose
from .cache_folder import KeptFiles
from .cached_rows import MemoryStorage, StoredRows, row_offsets
from .frozen_pass import CannotKeep, Lower, Wanted, fill

_WHAT = ("computing", "computing for the validation data")


@dataclasses.dataclass(frozen=True)
class _Held:
    """Feeds at a cut, and checksums of the weights that they were computed with."""

    feeds: list[Feed | None]
    checksums: tuple[int, ...]


class Activations:
    """Gives each phase what it is to train, and on what.

    Args:
        run: The run.
        plan: The plan, which says what is kept.
        feeds: The examples to train on and to measure with; the latter may be `None`.
        options: How activations are kept.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        feeds: Sequence[Feed | None],
        options: ActivationCache | None,
    ):
        self.run, self.plan, self.feeds = run, plan, list(feeds)
        self.options = options or ActivationCache()
        self._held: dict[int, _Held] = {}
        self._refused: set[int] = set()
        self._lower: Lower | None = None
        views = max(self.options.views, 1)
        self._sources = [feed and stacked(feed, views) for feed in feeds]
        self._files = KeptFiles(run.model, self.options, verbose=run.verbose)

    def part_and_feeds(self, phase: int) -> tuple[keras.Model, list[Feed | None]]:
        """What a phase trains, and the examples in the form that this takes."""
        later = [p.kept for p in self.plan.phases[phase:] if p.kept is not None]
        for cut in set(self._held) - {kept.cut for kept in later}:
            del self._held[cut]
        kept = self.plan.phases[phase].kept
        if kept is None or kept.cut in self._refused:
            return self.run.model, self.feeds
        if self._averaged(kept.cut):
            if self.run.verbose:
                say(
                    f"Nothing is kept of {kept.name} in this phase: the model is "
                    "measured with moving averages of the blocks before it."
                )
            return self.run.model, self.feeds
        if not self._holds(kept.cut):
            self._compute(phase)
        return self._at(kept.cut)

    def best(self) -> tuple[keras.Model, list[Feed | None]]:
        """What takes least to run the model, as it is now, over all examples."""
        for cut in sorted(self._held, key=lambda cut: (cut != FEATURES, -cut)):
            if self._holds(cut):
                return self._at(cut)
        return self.run.model, self.feeds

    def _at(self, cut: int) -> tuple[keras.Model, list[Feed | None]]:
        if cut not in self._held:
            return self.run.model, self.feeds
        return upper_half(self.run.model, cut), self._held[cut].feeds

    def _holds(self, cut: int) -> bool:
        """Whether there is something, and the blocks are as they were for it."""
        held = self._held.get(cut)
        return held is not None and held.checksums == self._checksums(cut)

    def _checksums(self, cut: int) -> tuple[int, ...]:
        return checksums(lower_weights(self.run.model, cut))

    def _averaged(self, cut: int) -> bool:
        """Whether there are moving averages that differ from the frozen weights.

        The model is measured with the averages, but trained with the weights.
        """
        averages = self.run.averages.by_id
        return any(
            not np.array_equal(*map(keras.ops.convert_to_numpy, (v, averages[id(v)])))
            for v in lower_weights(self.run.model, cut)
            if id(v) in averages
        )

    # === Computing ===

    def _compute(self, phase: int) -> None:
        """Computes what this phase needs, and what later ones need of the same pass."""
        wanted = self._of_one_pass(phase)
        while wanted[0].cut not in self._refused and not self._computed(wanted):
            wanted = [w for w in wanted if w is wanted[0] or w.cut not in self._refused]

    def _computed(self, wanted: Sequence[Kept]) -> bool:
        """Computes some sets in one pass; `False` if one of them cannot be kept."""
        for kept in wanted:
            self._held.pop(kept.cut, None)
        found: dict[int, list[Feed | None]] = {kept.cut: [] for kept in wanted}
        try:
            for feed, what in zip(self._sources, _WHAT, strict=True):
                feeds = self._feeds(feed, wanted, what) if feed else {}
                for cut, so_far in found.items():
                    so_far.append(feeds.get(cut))
        except (CannotKeep, OSError, MemoryError) as error:
            self._refuse(wanted, error)
            return False
        finally:
            self._lower = None  # it holds all weights once more
        for cut, feeds in found.items():
            self._held[cut] = _Held(feeds, self._checksums(cut))
        return True

    def _refuse(self, wanted: Sequence[Kept], error: Exception) -> None:
        """Says what is done without, and remembers it."""
        cuts = {kept.cut for kept in wanted}
        if isinstance(error, CannotKeep) and error.cut is not None:
            cuts = {error.cut}
        elif isinstance(error, OSError):
            on_disk = {kept.cut for kept in wanted if kept.where == "disk"}
            cuts = on_disk or cuts
        self._refused |= cuts
        names = ", ".join(kept.name for kept in wanted if kept.cut in cuts)
        if self.run.verbose:
            say(
                f"Nothing is kept of {names}, which is computed in each epoch: "
                f"{error or type(error).__name__}."
            )

    def _of_one_pass(self, phase: int) -> list[Kept]:
        first = self.plan.phases[phase].kept
        wanted, touched = {first.cut: first}, set()
        for planned in self.plan.phases[phase:]:
            kept = planned.kept
            below = {} if kept is None else lower_weights(self.run.model, kept.cut)
            usable = kept is not None and not touched & {id(v) for v in below}
            if usable and kept.cut not in self._refused and not self._holds(kept.cut):
                wanted.setdefault(kept.cut, kept)
                if not self._fits(list(wanted.values())):
                    wanted.pop(kept.cut)
            choice = choose(self.run.model, planned.phase)
            touched |= {id(v) for v in (*choice.trained, *choice.free)}
        return list(wanted.values())

    def _fits(self, wanted: Sequence[Kept]) -> bool:
        if len(wanted) == 1:
            return True
        limits = {"memory": self.options.memory, "disk": self.options.disk_limit}
        planned = {p.kept.cut: p.kept for p in self.plan.phases if p.kept is not None}
        everything = {cut: planned[cut] for cut in self._held}
        everything |= {kept.cut: kept for kept in wanted}
        return all(
            sum(k.size or 0 for k in everything.values() if k.where == where) <= limit
            for where, limit in limits.items()
        )

    def _feeds(self, feed: Feed, wanted: Sequence[Kept], what: str) -> dict[int, Feed]:
        """The examples at each cut: found on the disk, or computed."""
        rows, marks = {}, None
        for kept in wanted:
            if kept.where == "disk":
                rows[kept.cut] = self._files.find(kept, feed)
        missing = [kept for kept in wanted if rows.get(kept.cut) is None]
        if missing:
            with self._files.writing(feed) as writing:
                computed, *marks = fill(
                    self._lower_of(missing),
                    feed,
                    [self._wanted(kept, feed, writing) for kept in missing],
                    what=f"{what} {', '.join(kept.name for kept in missing)}",
                    verbose=self.run.verbose,
                )
                for kept, made in zip(missing, computed, strict=True):
                    rows[kept.cut] = made
                    if kept.where == "disk":
                        writing.finish(kept, made)
        labels, weights = marks or feed.marks()
        return {
            cut: feed.with_rows(found, labels, weights) for cut, found in rows.items()
        }

    def _lower_of(self, wanted: Sequence[Kept]) -> Lower:
        cuts = tuple(kept.cut for kept in wanted)
        if self._lower is None or self._lower.cuts != cuts:
            self._lower = Lower(self.run.model, cuts)
        return self._lower

    def _wanted(self, kept: Kept, feed: Feed, writing) -> Wanted:
        def in_memory(structure, columns) -> StoredRows:
            offsets = row_offsets(columns, feed.examples, feed.lengths)
            storage = MemoryStorage(offsets)
            return StoredRows(
                storage, structure, columns, count=feed.examples, lengths=feed.lengths
            )

        def on_disk(structure, columns) -> StoredRows:
            return writing.make(kept, structure, columns)

        make = on_disk if kept.where == "disk" else in_memory
        return Wanted(kept.cut, kept.dtype, make)


def final_evaluation(
    run: Run, activations: Activations
) -> dict[str, reports.Evaluation]:
    """What the report says of the validation data, if it is a classification."""
    if models.task_of(run.model) is None or activations.feeds[1] is None:
        return {}
    part, (_, validation) = activations.best()
    found = evaluate_feed(
        run.model, part, validation, run.setting.objective, verbose=run.verbose
    )
    return {"validation": found}
