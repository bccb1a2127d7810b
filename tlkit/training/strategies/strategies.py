"""Strategies: where a model is trained."""

from __future__ import annotations

import collections
import dataclasses
import os

import keras
import tensorflow as tf

from ...errors import DataError, TrainingError
from ...launching import read_cluster
from .workers import connect

NAMES = ("auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu")

# By name: a process joins its cluster once, and starting a TPU anew would empty it.
_MADE: dict[str, tf.distribute.Strategy] = {}


def strategy(name: str | tf.distribute.Strategy = "auto") -> tf.distribute.Strategy:
    """The strategy of a name; in one process always the same one.

    Those of several machines and of a TPU that is not this machine's are to be made in
    the first lines of a script: what TensorFlow has made before is lost, or in the way.

    Args:
        name: `"auto"` for the machines that `TF_CONFIG` names if they are several, else
            a TPU if there is one, else all GPUs, else the CPU; `"cpu"` and `"gpu"` for
            one device; `"mirrored"` for all GPUs (or all logical CPUs) of this machine;
            `"multi_worker"` for the machines that `TF_CONFIG` names; `"tpu"` for the
            TPU of this machine, or else the one that the environment names. A strategy
            comes back as it is.

    Returns:
        The strategy. A model may be built in its scope; `tlkit.fit` carries one in that
        was built elsewhere.

    Raises:
        TrainingError: There is no such name or no such device.

    Example:

    ```python
    strategy = tlkit.strategy("auto")
    with strategy.scope():
        model = tlkit.image_classifier("resnet_v2_50", ["cat", "dog"])
    report = tlkit.fit(model, splits, strategy=strategy)
    ```
    """
    if isinstance(name, tf.distribute.Strategy):
        return name
    if name not in NAMES:
        there = ", ".join(repr(known) for known in NAMES)
        raise TrainingError(
            f"strategy must be one of {there} or a tf.distribute.Strategy. "
            f"Received: {name!r}."
        )
    if name == "auto":
        name = _best()
    if name not in _MADE:
        _MADE[name] = _make(name)
    return _MADE[name]


def _make(name: str) -> tf.distribute.Strategy:
    if name == "cpu":
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    if name == "gpu":
        _need_gpu()
        return tf.distribute.OneDeviceStrategy("/gpu:0")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_replica_devices())
    return connect() if name == "multi_worker" else _tpu()


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a model is trained.

    Attributes:
        strategy: The strategy.
        device: The device to stay on, or `None` for any.
        carry: Whether the model is to be carried into the strategy's scope first, and
            what becomes of it back: it was built elsewhere.
    """

    strategy: tf.distribute.Strategy
    device: str | None = None
    carry: bool = False


def find_place(
    model: keras.Model, wanted: str | tf.distribute.Strategy | None
) -> Place:
    """Where a model is trained as it is wanted.

    Args:
        model: The model, built.
        wanted: A name, a strategy, or `None` for where the model is. `"auto"` leaves a
            model where it is, too, if it was built in a scope.

    Returns:
        The place.

    Raises:
        TrainingError: There is no such strategy, or this is the scope of another.
    """
    place = _place(model, wanted)
    current = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and current is not place.strategy:
        raise TrainingError(
            f"tlkit.fit was called in the scope of a {_kind(current)}, and is to train "
            f"with another, a {_kind(place.strategy)}. Call it outside any scope; the "
            "model may be built inside:\n"
            "    with strategy.scope():\n"
            "        model = …\n"
            "    tlkit.fit(model, …, strategy=strategy)"
        )
    return place


def _place(model: keras.Model, wanted: str | tf.distribute.Strategy | None) -> Place:
    homes = _homes(model)
    home = homes[0] if len(homes) == 1 else None
    # Making another one of these would empty the TPU, or fail.
    only = {
        "tpu": tf.distribute.TPUStrategy,
        "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
    }
    named = isinstance(wanted, str)
    if home is not None and named:
        if wanted == "auto" or isinstance(home, only.get(wanted, ())):
            return Place(home)
    if wanted is None:
        found = home or tf.distribute.get_strategy()
    else:
        found = strategy(wanted)
    if home is not None and (found is home or (named and _alike(found, home))):
        return Place(home)
    if homes in ([], [None]):
        if is_default(found):
            return Place(found)
        if isinstance(found, tf.distribute.OneDeviceStrategy):
            # Its scope takes no variables from outside; its device does.
            device = found.extended.worker_devices[0]
            if all(variable.value.device == device for variable in model.variables):
                return Place(tf.distribute.get_strategy(), device)
    return Place(found, carry=True)


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Refuses batches that leave a replica without an example.

    Args:
        batch_size: Examples in a batch, over all replicas.
        strategy: The strategy.

    Raises:
        DataError: It is less than the number of replicas.
    """
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise DataError(
            f"batch_size={batch_size} is a batch for all replicas together, and less "
            f"than the {replicas} replicas of the {_kind(strategy)}: some would have "
            f"nothing to do. Type batch_size={replicas} or a multiple of it, or "
            "strategy='cpu' or 'gpu' for one device."
        )


# === What a model has to do with strategies ===


def _homes(model: keras.Model) -> list[tf.distribute.Strategy | None]:
    """The strategies in whose scopes a model was built; `None` for no scope."""
    homes = []
    for variable in model.variables:
        home = getattr(variable.value, "distribute_strategy", None)
        # Outside every scope there is a default strategy.
        home = None if home is None or is_default(home) else home
        if home not in homes:
            homes.append(home)
    return homes


def is_tpu(found: tf.distribute.Strategy) -> bool:
    """Whether a strategy runs on a TPU, where shapes must be known."""
    return isinstance(found, tf.distribute.TPUStrategy)


def is_default(found: tf.distribute.Strategy) -> bool:
    """Whether it is what TensorFlow has outside every scope."""
    return _kind(found) == "_DefaultDistributionStrategy"


def _alike(one: tf.distribute.Strategy, other: tf.distribute.Strategy) -> bool:
    same_kind = type(one) is type(other)
    return same_kind and one.extended.worker_devices == other.extended.worker_devices


def _kind(strategy: tf.distribute.Strategy) -> str:
    return type(strategy).__name__


# === What there is ===


def _best() -> str:
    cluster = read_cluster(os.environ)
    if cluster is not None and len(cluster.addresses) > 1:
        return "multi_worker"
    if tf.config.list_physical_devices("TPU"):
        return "tpu"
    gpus = len(tf.config.list_logical_devices("GPU"))
    return ("cpu", "gpu")[gpus] if gpus < 2 else "mirrored"


def _there_is() -> str:
    """The devices that TensorFlow sees, in words."""
    kinds = collections.Counter(d.device_type for d in tf.config.list_logical_devices())
    return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"


def _need_gpu() -> None:
    if not tf.config.list_logical_devices("GPU"):
        raise TrainingError(
            f"TensorFlow sees no GPU here. The devices are: {_there_is()}. Type "
            "strategy='auto' to take what there is, or install "
            'pip install "tensorflow[and-cuda]" if the machine has a GPU.'
        )


def _replica_devices() -> list[str]:
    for kind in ("GPU", "CPU"):
        devices = tf.config.list_logical_devices(kind)
        if devices:
            return [device.name for device in devices]
    raise TrainingError("TensorFlow sees no device at all.")


def _tpu() -> tf.distribute.Strategy:
    """The TPU of this machine, or else the one that the environment names.

    However many replicas it has; the TPUs that Colab lends have one.
    """
    tried = []
    for address in ("local", None):
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
            return tf.distribute.TPUStrategy(resolver)
        except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
            tried.append(error)
    raise TrainingError(
        f"There is no TPU that TensorFlow {tf.__version__} can use here. The devices "
        f"are: {_there_is()}. On this machine: {_first_sentence(tried[0])} By the "
        f"environment (TPU_NAME): {_first_sentence(tried[1])} Type strategy='auto' to "
        "take what there is. If the machine has a TPU, its TensorFlow is the package "
        'tensorflow-tpu: pip install "tensorflow-tpu==2.20.*" --find-links='
        "https://storage.googleapis.com/libtpu-tf-releases/index.html"
    ) from tried[0]


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].split(". ")[0][:200].rstrip(".") + "."
