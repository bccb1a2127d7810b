"""What of the frozen blocks is kept: at which cut, where, and whether it pays."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import resource
from typing import Any

import keras
import tensorflow as tf

from ...encoders import cut_name, section_costs
from ...errors import PlanError
from ...files import cache_folder
from ...models import FEATURES, can_cut, encoder_to_cut, head_of
from ..feeds.feed import Feed
from .phase import Phase
from .trainable_selection import Choice

WHERE = ("auto", "memory", "disk")
DTYPES = ("auto", "float32", "float16")

# What one core of a few years ago reads from memory and from a disk, in bytes, and
# computes, in multiplications a second; a GPU computes a hundred times as much. Rough
# numbers do: they only decide where computing again is much the cheaper one.
_MEMORY_RATE, _DISK_RATE, _COMPUTE_RATE, _GPU = 2e9, 2.5e8, 2.5e10, 100
_SHARE_OF_MEMORY = 0.25
_DISK_LIMIT = 50 * 10**9


@dataclasses.dataclass(frozen=True)
class ActivationCache:
    """How `fit` keeps what frozen blocks give, instead of computing it each epoch.

    Attributes:
        where: `"memory"`, `"disk"`, or `"auto"` for memory where it is large enough,
            else for a disk, and for neither where computing anew is cheaper.
        dtype: `"float32"`; `"float16"` for half the room, which rounds to three
            digits; `"auto"` for float32, and float16 where only that fits in memory.
        directory: A folder for what is kept on a disk, by default
            `activations` in the cache folder of `tlkit`. A later run finds it there.
        memory_limit: Bytes. Default: a quarter of the machine's memory.
        disk_limit: Bytes that all of the folder may take; what was not used for longest
            is removed. Default: 50 GB.
        views: With augmentation, how many augmented views of each example are kept;
            epochs take turns with them. With 0, the default, nothing is kept of
            augmented pictures, and never of those that MixUp or CutMix blend.

    Raises:
        PlanError: A value is not allowed.

    Example:

    ```python
    cache = tlkit.ActivationCache("disk", directory="/scratch/activations")
    tlkit.fit(model, splits, schedule=tlkit.gradual(), cache=cache)
    ```
    """

    where: str = "auto"
    dtype: str = "auto"
    directory: str | os.PathLike | None = None
    memory_limit: int | None = None
    disk_limit: int = _DISK_LIMIT
    views: int = 0

    def __post_init__(self):
        for name, allowed in (("where", WHERE), ("dtype", DTYPES)):
            if getattr(self, name) not in allowed:
                raise PlanError(
                    f"{name} of a cache must be one of {', '.join(allowed)}; got "
                    f"{getattr(self, name)!r}."
                )
        for name in ("memory_limit", "disk_limit", "views"):
            number = getattr(self, name)
            if number is not None and number < 0:
                raise PlanError(f"{name} must be 0 or more; got {number!r}.")

    @property
    def memory(self) -> int:
        """Bytes that may be kept in memory."""
        if self.memory_limit is not None:
            return self.memory_limit
        return int(_SHARE_OF_MEMORY * machine_memory())

    @property
    def folder(self) -> pathlib.Path:
        """Where activations are kept on a disk."""
        if self.directory is not None:
            return pathlib.Path(self.directory).expanduser()
        return cache_folder() / "activations"


def cache_options(cache: Any) -> ActivationCache | None:
    """The options that an argument `cache` of `fit` stands for; `None` for no cache."""
    if cache is None or cache is False:
        return None
    if isinstance(cache, ActivationCache):
        return cache
    if cache is True:
        return ActivationCache()
    if cache in WHERE:
        return ActivationCache(cache)
    raise PlanError(
        f"cache must be one of {', '.join(map(repr, WHERE))}, False, or a "
        f"tlkit.ActivationCache; got {cache!r}."
    )


def can_keep(feed: Feed, options: ActivationCache | None) -> bool:
    """Whether what is computed of a feed's examples holds for more than one epoch."""
    if options is None or not feed.examples:
        return False
    return feed.repeats or (feed.view is not None and options.views > 0)


def machine_memory() -> int:
    """Bytes of memory of this machine, of its container, or of this process."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS):
        limit, _ = resource.getrlimit(kind)
        total = total if limit == resource.RLIM_INFINITY else min(total, limit)
    for path in (
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ):
        try:
            total = min(total, int(pathlib.Path(path).read_text()))
        except (OSError, ValueError):
            continue
    return total


@dataclasses.dataclass(frozen=True)
class Kept:
    """What is kept for a phase.

    Attributes:
        cut: `FEATURES`, or the encoder's section that begins at the cut.
        name: `"features"`, or the block or part behind which the cut is.
        where: `"memory"` or `"disk"`.
        dtype: As what it is kept.
        size: Bytes of all examples; `None` if their number is not known.
        saves: The share of the phase's work, forward and backward, that is saved.
    """

    cut: int
    name: str
    where: str
    dtype: str
    size: int | None
    saves: float


@dataclasses.dataclass(frozen=True)
class Amount:
    """How much data there is.

    Attributes:
        examples: How many examples; `None` if that is not known.
        epochs: How often a phase goes through them.
        tokens: Mean length of a text, padding not counted.
    """

    examples: int | None
    epochs: float
    tokens: float | None = None


def choose_cut(model: keras.Model, choice: Choice) -> int | None:
    """The last cut below which all is frozen, or `None`."""
    if not choice.blocks and can_cut(model, FEATURES):
        return FEATURES
    encoder = encoder_to_cut(model)
    if encoder is None:
        return None
    trained = {id(variable) for variable in choice.trained}
    frozen = [not any(id(v) in trained for v in s) for s in encoder.sections]
    cut = [*frozen, False].index(False)
    return cut if 0 < cut < len(frozen) and can_cut(model, cut) else None


def what_to_keep(
    model: keras.Model,
    phase: Phase,
    choice: Choice,
    amount: Amount,
    options: ActivationCache,
) -> Kept | None:
    """What is kept for a phase; `None` if nothing can be, or none of it pays."""
    cut = choose_cut(model, choice)
    if cut is None:
        return None
    work, below, numbers = _work(model, cut, amount)
    above = 1 - below
    done = below + 3 * above  # the backward pass costs twice the forward one
    saves = below * max(amount.epochs - 1, 0) / (done * max(amount.epochs, 1))
    size, dtype = None, "float32" if options.dtype == "auto" else options.dtype
    if amount.examples is not None:
        size = int(
            amount.examples
            * max(options.views, 1)
            * numbers
            * (2 if dtype == "float16" else 4)
        )
    where = options.where
    if where == "auto" and not numbers:
        return None  # how much it would be is not known
    if where == "auto":
        found = _place(size, dtype, options, work * below, numbers, amount.epochs)
        if found is None:
            return None
        where, dtype, size = found
    name = "features" if cut == FEATURES else cut_name(encoder_to_cut(model), cut)
    return Kept(cut, name, where, dtype, size, saves)


def _place(size, dtype, options: ActivationCache, work, numbers, epochs):
    """Where to keep something, as what, and how much that is; `None` for nowhere."""
    if size is None:
        return "memory", dtype, size
    pays = lambda rate: work * (epochs - 1) / _rate() > 4 * numbers * epochs / rate
    if size <= options.memory:
        return ("memory", dtype, size) if pays(_MEMORY_RATE) or not work else None
    if options.dtype == "auto" and size // 2 <= options.memory and pays(_MEMORY_RATE):
        return "memory", "float16", size // 2
    if size <= options.disk_limit and pays(_DISK_RATE):
        return "disk", dtype, size
    return None


def _rate() -> float:
    accelerated = tf.config.list_logical_devices(
        "GPU"
    ) or tf.config.list_logical_devices("TPU")
    return _COMPUTE_RATE * (_GPU if accelerated else 1)


def _work(model: keras.Model, cut: int, amount: Amount) -> tuple[float, float, float]:
    """An example's multiplications, the share below a cut, and the numbers there."""
    encoder = encoder_to_cut(model)
    features = math.prod(head_of(model).input.shape[1:])
    if encoder is None:
        return 0.0, 1.0, features
    costs = section_costs(encoder, _shapes(model, encoder, amount))
    total = sum(costs.multiplications) or 1
    if cut == FEATURES:
        return float(total), 1.0, features
    below = sum(costs.multiplications[:cut]) / total
    return float(total), below, float(costs.sizes[cut - 1])


def _shapes(model: keras.Model, encoder, amount: Amount) -> list[tuple[int, ...]]:
    """Shapes of the encoder's inputs for one example."""
    given = tf.nest.flatten(encoder.input)
    length = encoder.details.get("length") or 128
    tokens = length if amount.tokens is None else max(1, round(amount.tokens))
    return [
        (1, *(tokens if size is None else size for size in tensor.shape[1:]))
        for tensor in given
    ]
