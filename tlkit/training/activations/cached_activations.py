"""Selects the part of a model that each phase trains, and its cached activations.

The activations at a cut are computed once. They are reused in all phases in which the
blocks before the cut are frozen and their weights have not changed.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from ...models import FEATURES, prefix_function, prefix_weights, remainder_of
from ..feeds.feed import Feed
from ..feeds.stacked_views import stacked
from ..loop.display import print_line
from ..loop.frozen_check import checksums
from ..loop.run import Run
from ..plans.cache_plan import ActivationCache, CachePlan
from ..plans.plan import Plan
from .cache_folder import CacheFolder
from .cached_rows import CachedRows
from .frozen_pass import NotCacheableError, compute_activations

_PROGRESS_LABELS = ("computing", "computing for the validation data")


@dataclasses.dataclass(frozen=True)
class _CachedFeeds:
    """Feeds of the activations at a cut, and checksums of the weights before it."""

    feeds: list[Feed | None]
    checksums: tuple[int, ...]


class CachedActivations:
    """Selects the part of the model that each phase trains, and the feeds for it.

    Args:
        run: The run.
        plan: The plan, which contains the cut of each phase.
        feeds: The training and the validation examples; the latter may be `None`.
        options: The user's options of the cache, or `None` for the defaults.
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
        self._cached: dict[int, _CachedFeeds] = {}
        self._not_cacheable: set[int] = set()
        views = max(self.options.views, 1)
        self._sources = [feed and stacked(feed, views) for feed in feeds]
        self._folder = CacheFolder(run.model, self.options, verbose=run.verbose)

    def part_and_feeds(self, phase: int) -> tuple[keras.Model, list[Feed | None]]:
        """Returns the part of the model that a phase trains, and the feeds for it.

        The activations are computed first if they are missing or outdated. Without
        a cache, this is the complete model, with the examples themselves.

        Args:
            phase: The index of the phase.
        """
        later = {p.kept.cut for p in self.plan.phases[phase:] if p.kept is not None}
        for cut in set(self._cached) - later:
            del self._cached[cut]
        planned = self.plan.phases[phase].kept
        if planned is None or planned.cut in self._not_cacheable:
            return self.run.model, self.feeds
        if self._has_other_averages(planned.cut):
            self._say(
                f"Nothing is cached at {planned.name} in this phase: the model is "
                "measured with moving averages of the blocks before it."
            )
            return self.run.model, self.feeds
        if not self._is_current(planned.cut):
            self._compute(phase)
        return self._at(planned.cut)

    def smallest_part(self) -> tuple[keras.Model, list[Feed | None]]:
        """Returns the cheapest part to run over all examples, and the feeds for it."""
        for cut in sorted(self._cached, key=lambda cut: (cut != FEATURES, -cut)):
            if self._is_current(cut):
                return self._at(cut)
        return self.run.model, self.feeds

    def _at(self, cut: int) -> tuple[keras.Model, list[Feed | None]]:
        if cut not in self._cached:
            return self.run.model, self.feeds
        return remainder_of(self.run.model, cut), self._cached[cut].feeds

    def _is_current(self, cut: int) -> bool:
        """Returns whether activations of the present weights are cached."""
        cached = self._cached.get(cut)
        return cached is not None and cached.checksums == self._checksums(cut)

    def _checksums(self, cut: int) -> tuple[int, ...]:
        return checksums(prefix_weights(self.run.model, cut))

    def _has_other_averages(self, cut: int) -> bool:
        """Returns whether moving averages differ from the frozen weights before a cut.

        The model is measured with the averages, but trained with the weights.
        """
        averages = self.run.averages.by_id
        return any(
            not np.array_equal(*map(keras.ops.convert_to_numpy, (v, averages[id(v)])))
            for v in prefix_weights(self.run.model, cut)
            if id(v) in averages
        )

    def _say(self, message: str) -> None:
        if self.run.verbose:
            print_line(message)

    @contextlib.contextmanager
    def _explaining_loss(self, names: str) -> Iterator[None]:
        """After a signal, prints that activations cached in memory are lost."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if names:
                self._say(
                    f"Interrupted: the activations at {names} were cached in memory. "
                    'The next run computes them again; cache="disk" keeps them.'
                )
            raise

    # === Computing ===

    def _compute(self, phase: int) -> None:
        """Computes the activations for this and later phases in one pass over data."""
        first, *others = self._same_pass(phase)
        while first.cut not in self._not_cacheable:
            others = [p for p in others if p.cut not in self._not_cacheable]
            if self._try_to_compute([first, *others]):
                return

    def _try_to_compute(self, planned: Sequence[CachePlan]) -> bool:
        """Computes the activations at some cuts; returns whether that was possible."""
        for one in planned:
            self._cached.pop(one.cut, None)
        feeds: dict[int, list[Feed | None]] = {one.cut: [] for one in planned}

        @functools.cache  # only within this call, since a prefix copies the weights
        def prefix(*cuts: int):
            return tf.function(prefix_function(self.run.model, cuts), autograph=False)

        try:
            for source, label in zip(self._sources, _PROGRESS_LABELS, strict=True):
                new = self._feeds(source, planned, prefix, label) if source else {}
                for cut in feeds:
                    feeds[cut].append(new.get(cut))
        except (NotCacheableError, OSError, MemoryError) as error:
            self._reject(planned, error)
            return False
        for cut in feeds:
            self._cached[cut] = _CachedFeeds(feeds[cut], self._checksums(cut))
        return True

    def _reject(self, planned: Sequence[CachePlan], error: Exception) -> None:
        """Excludes the cuts that an error concerns from the cache."""
        cuts = {one.cut for one in planned}
        if isinstance(error, NotCacheableError) and error.cut is not None:
            cuts = {error.cut}
        elif isinstance(error, OSError):
            cuts = {one.cut for one in planned if one.where == "disk"} or cuts
        self._not_cacheable |= cuts
        names = ", ".join(one.name for one in planned if one.cut in cuts)
        self._say(
            f"Nothing is cached at {names}, which is computed in each epoch: "
            f"{error or type(error).__name__}."
        )

    def _same_pass(self, phase: int) -> list[CachePlan]:
        """Returns the cuts of this and later phases that one pass can compute.

        The weights before a later cut must not change until its phase begins.
        """
        first = self.plan.phases[phase].kept
        planned, trained = {first.cut: first}, set()
        for later in self.plan.phases[phase:]:
            one = later.kept
            before = [] if one is None else prefix_weights(self.run.model, one.cut)
            usable = one is not None and trained.isdisjoint(map(id, before))
            if usable and one.cut not in self._not_cacheable:
                if not self._is_current(one.cut):
                    planned.setdefault(one.cut, one)
                    if not self._fits(list(planned.values())):
                        del planned[one.cut]
            model = self.run.model
            weights = (*later.trained_weights(model), *later.free_weights(model))
            trained |= {id(v) for v in weights}
        return list(planned.values())

    def _fits(self, planned: Sequence[CachePlan]) -> bool:
        """Returns whether the limits allow these activations and the cached ones."""
        if len(planned) == 1:
            return True
        limits = {"memory": self.options.memory, "disk": self.options.disk_limit}
        by_cut = {p.kept.cut: p.kept for p in self.plan.phases if p.kept is not None}
        together = {cut: by_cut[cut] for cut in self._cached}
        together |= {one.cut: one for one in planned}
        return all(
            sum(one.size or 0 for one in together.values() if one.where == where)
            <= limit
            for where, limit in limits.items()
        )

    def _feeds(
        self,
        source: Feed,
        planned: Sequence[CachePlan],
        prefix: Callable,
        label: str,
    ) -> dict[int, Feed]:
        """Returns a feed for each cut, of activations found on disk or computed."""
        count, lengths = source.examples, source.lengths
        on_disk = [one for one in planned if one.where == "disk"]
        entries = {one.cut: self._folder.entry(one, source) for one in on_disk}
        rows = {cut: entry.find() for cut, entry in entries.items()}
        missing = [one for one in planned if rows.get(one.cut) is None]
        marks = None
        in_memory = ", ".join(one.name for one in missing if one.cut not in entries)

        def create(one: CachePlan, specs, columns) -> CachedRows:
            if one.cut in entries:
                return entries[one.cut].create(specs, columns, stack)
            shapes = [(c.stored_shape(count, lengths), c.dtype) for c in columns]
            arrays = [np.empty(shape, dtype) for shape, dtype in shapes]
            return CachedRows(arrays, columns, specs, count, lengths)

        if missing:
            names = ", ".join(one.name for one in missing)
            with contextlib.ExitStack() as stack, self._explaining_loss(in_memory):
                computed, *marks = compute_activations(
                    self.run.model,
                    prefix(*(one.cut for one in missing)),
                    source,
                    missing,
                    create,
                    what=f"{label} {names}",
                    verbose=self.run.verbose,
                )
                for one, new in zip(missing, computed, strict=True):
                    rows[one.cut] = new
                    if one.cut in entries:
                        entries[one.cut].publish(new)
        labels, weights = marks or source.labels_and_weights()
        return {cut: source.with_inputs(r, labels, weights) for cut, r in rows.items()}
