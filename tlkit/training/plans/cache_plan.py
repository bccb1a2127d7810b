"""Plans the activation cache of a phase: the cut, memory or disk, and its savings."""

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
from ...files import cache_folder, user_path
from ...models import FEATURES, can_cut, encoder_to_cut, head_of, packing_of
from ..feeds.feed import Feed
from .trainable_selection import TrainableSelection, weights_at

WHERE = ("auto", "memory", "disk")
DTYPES = ("auto", "float32", "float16")

# Bytes a second that one CPU core reads from memory and from a disk, multiplications a
# second that it computes, and the factor for a GPU. Rough numbers suffice: they only
# decide where recomputing is much cheaper.
_MEMORY_SPEED, _DISK_SPEED, _CPU_SPEED, _GPU_FACTOR = 2e9, 2.5e8, 2.5e10, 100
_MEMORY_FRACTION = 0.25
_DISK_LIMIT = 50 * 10**9


@dataclasses.dataclass(frozen=True)
class ActivationCache:
    """How `fit` caches the output of frozen blocks instead of recomputing it.

    Attributes:
        where: `"memory"`, `"disk"` or `"auto"`: memory if the activations fit, else
            disk, and no cache where recomputing is cheaper.
        dtype: `"float32"`; `"float16"`, which takes half the space and rounds to three
            digits; or `"auto"`: float16 if only that fits into memory, else float32.
        directory: The folder of a cache on disk, by default `activations` in the cache
            folder of `tlkit`. A later run reuses its files; after an interrupt, it
            computes only the examples that are missing.
        memory_limit: The maximum size of a cache in memory, in bytes. Default: a
            quarter of the machine's memory.
        disk_limit: The maximum size of the whole folder, in bytes; beyond it, the least
            recently used files are removed. Default: 50 GB.
        views: With augmentation, the number of augmented views of each example that are
            cached; epochs take turns with them. With 0, the default, augmented images
            are not cached. Those that MixUp or CutMix blend are never cached.

    Raises:
        PlanError: A value is not allowed.

    Example:

    ```python
    cache = tlkit.ActivationCache("disk", directory="activations")
    cache  # ActivationCache(where="disk", dtype="auto", directory="activations", …)
    report = tlkit.fit(model, splits, schedule=tlkit.gradual(), cache=cache)
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
        """The limit of a cache in memory, in bytes."""
        if self.memory_limit is not None:
            return self.memory_limit
        return int(_MEMORY_FRACTION * machine_memory())

    @property
    def folder(self) -> pathlib.Path:
        """The folder of a cache on disk."""
        if self.directory is not None:
            return user_path(self.directory).absolute()
        return cache_folder() / "activations"


def cache_options(cache: Any) -> ActivationCache | None:
    """Converts `fit`'s argument `cache` into options; `None` means no cache.

    Raises:
        PlanError: It is not a value of `cache`.
    """
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


def is_cacheable(
    train: Feed, validation: Feed | None, options: ActivationCache | None
) -> bool:
    """Returns whether cached activations of the examples are valid in every epoch."""
    if options is None or not train.examples:
        return False
    if validation is not None and not (validation.examples and validation.repeats):
        return False  # a user's batches, which may differ between epochs
    streams = [f for f in (train, validation) if f and f.stream_buffer is not None]
    if streams and options.where == "auto":
        return False  # their examples may differ between epochs
    return train.repeats or (train.has_views and options.views > 0)


def machine_memory() -> int:
    """Returns the bytes of memory of this machine, its container or this process."""
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
class CachePlan:
    """The activations that are cached for a phase.

    Attributes:
        cut: `FEATURES`, or the index of the encoder's section that begins at the cut.
        name: `"features"`, or the last block or part before the cut.
        where: `"memory"` or `"disk"`.
        dtype: The dtype of cached floating-point numbers.
        size: Bytes for all examples; `None` if the number of examples is unknown.
        saves: The fraction of the phase's work, forward and backward, that is saved.
    """

    cut: int
    name: str
    where: str
    dtype: str
    size: int | None
    saves: float


def plan_cache(
    model: keras.Model,
    selection: TrainableSelection,
    options: ActivationCache,
    *,
    examples: int | None,
    epochs: float,
    tokens: float | None,
) -> CachePlan | None:
    """Plans the cache of a phase; `None` if nothing can be cached or it does not pay.

    Args:
        model: The model.
        selection: The trained and frozen weights of the phase.
        options: The user's options.
        examples: The number of examples; `None` if it is unknown.
        epochs: The number of epochs of the phase.
        tokens: The mean length of texts in tokens, without padding.
    """
    cut = _last_frozen_cut(model, selection)
    if cut is None:
        return None
    work, fraction, numbers = _work(model, cut, tokens)
    # The backward pass, which only runs after the cut, costs twice the forward one.
    work_per_epoch = fraction + 3 * (1 - fraction)
    saved = fraction * max(epochs - 1, 0)
    where, size = options.where, None
    dtype = "float32" if options.dtype == "auto" else options.dtype
    if examples is not None:
        per_example = numbers * (2 if dtype == "float16" else 4)
        size = int(examples * max(options.views, 1) * per_example)
    if where == "auto":
        if not numbers:
            return None  # the size at the cut is unknown
        storage = _storage(size, dtype, options, work * fraction, numbers, epochs)
        if storage is None:
            return None
        where, dtype, size = storage
    return CachePlan(
        cut,
        "features" if cut == FEATURES else cut_name(encoder_to_cut(model), cut),
        where,
        dtype,
        size,
        saves=saved / (work_per_epoch * max(epochs, 1)),
    )


def _last_frozen_cut(model: keras.Model, selection: TrainableSelection) -> int | None:
    """Returns the last cut with only frozen sections before it, or `None`."""
    if not selection.blocks and can_cut(model, FEATURES):
        return FEATURES
    encoder = encoder_to_cut(model)
    if encoder is None:
        return None
    trained = {id(variable) for variable in weights_at(model, selection.trained)}
    frozen = [not any(id(v) in trained for v in s) for s in encoder.sections]
    cut = [*frozen, False].index(False)
    return cut if 0 < cut < len(frozen) and can_cut(model, cut) else None


def _storage(
    size: int | None,
    dtype: str,
    options: ActivationCache,
    work: float,
    numbers: float,
    epochs: float,
) -> tuple[str, str, int | None] | None:
    """Chooses where, dtype and size of a cache; `None` if no cache pays.

    `size` counts bytes for all examples as `dtype`; `work` and `numbers` count the
    multiplications before the cut and the numbers at the cut for one example.
    """

    def pays(read_speed: float) -> bool:
        recompute_seconds = work * (epochs - 1) / _compute_speed()
        return recompute_seconds > 4 * numbers * epochs / read_speed

    if size is None:
        return "memory", dtype, size
    if size <= options.memory:
        return ("memory", dtype, size) if pays(_MEMORY_SPEED) or not work else None
    if options.dtype == "auto" and size // 2 <= options.memory and pays(_MEMORY_SPEED):
        return "memory", "float16", size // 2
    if size <= options.disk_limit and pays(_DISK_SPEED):
        return "disk", dtype, size
    return None


def _compute_speed() -> float:
    """Returns roughly how many multiplications this machine computes a second."""
    accelerators = map(tf.config.list_logical_devices, ("GPU", "TPU"))
    return _CPU_SPEED * (_GPU_FACTOR if any(accelerators) else 1)


def _work(
    model: keras.Model, cut: int, tokens: float | None
) -> tuple[float, float, float]:
    """Computes the costs of one example: multiplications, a fraction and a size.

    The fraction is that of the multiplications before the cut; the size is the count of
    numbers at the cut.
    """
    encoder = encoder_to_cut(model)
    features = math.prod(head_of(model).input.shape[1:])
    if encoder is None:
        return 0.0, 1.0, features
    costs = section_costs(encoder, _input_shapes(model, encoder, tokens))
    total = sum(costs.multiplications) or 1
    if cut == FEATURES:
        return float(total), 1.0, features
    fraction = sum(costs.multiplications[:cut]) / total
    return float(total), fraction, float(costs.sizes[cut - 1])


def _input_shapes(
    model: keras.Model, encoder, tokens: float | None
) -> list[tuple[int, ...]]:
    """Returns the shapes of the encoder's inputs for one example."""
    length = packing_of(model).length
    length = length if tokens is None else max(1, round(tokens))
    return [
        (1, *(length if size is None else size for size in tensor.shape[1:]))
        for tensor in tf.nest.flatten(encoder.input)
    ]
