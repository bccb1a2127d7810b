"""`tlkit.strategy`, and the choice of the devices on which a model is trained."""

import collections
import dataclasses
import os

import keras
import tensorflow as tf

from ...errors import DataError, TrainingError
from ...launching import read_cluster
from .rendezvous import connect

NAMES = ("auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu")

# One strategy for each name: a process can join a cluster only once, and initializing a
# TPU again would erase its memory.
_STRATEGIES: dict[str, tf.distribute.Strategy] = {}


def strategy(name: str | tf.distribute.Strategy = "auto") -> tf.distribute.Strategy:
    """Returns the strategy for a name; within a process, always the same object.

    For several machines, or a TPU in another machine, call this in the first lines of a
    script. Otherwise TensorFlow loses the variables created before, or raises an error.

    Args:
        name: `"auto"` for the machines in `TF_CONFIG` if there are several, else the
            TPU if there is one, else all GPUs, else the CPU; `"cpu"` and `"gpu"` for
            one device; `"mirrored"` for all GPUs (or all logical CPUs) of this machine;
            `"multi_worker"` for the machines in `TF_CONFIG`; `"tpu"` for the TPU of
            this machine, or else the one in the environment. A strategy is returned
            unchanged.

    Returns:
        The strategy. A model may be built in its scope; otherwise `tlkit.fit` copies
        the model into the scope.

    Raises:
        TrainingError: There is no such name or no such device.

    Example:

    ```python
    strategy = tlkit.strategy("auto")  # on a machine with two GPUs
    strategy.num_replicas_in_sync  # 2
    with strategy.scope():
        model = tlkit.image_classifier("resnet_v2_50", splits.labels)
    report = tlkit.fit(model, splits, strategy=strategy)
    ```
    """
    if isinstance(name, tf.distribute.Strategy):
        return name
    if name not in NAMES:
        allowed = ", ".join(repr(one) for one in NAMES)
        raise TrainingError(
            f"strategy must be one of {allowed} or a tf.distribute.Strategy. "
            f"Received: {name!r}."
        )
    if name == "auto":
        name = _best_name()
    if name not in _STRATEGIES:
        _STRATEGIES[name] = _create(name)
    return _STRATEGIES[name]


@dataclasses.dataclass(frozen=True)
class Placement:
    """The devices on which a model is trained.

    Attributes:
        strategy: The strategy.
        device: The device for all ops, or `None` for any.
        copy: Whether the model has to be copied into the strategy's scope, and its
            state back, since it was built elsewhere.
    """

    strategy: tf.distribute.Strategy
    device: str | None = None
    copy: bool = False


def find_placement(
    model: keras.Model, requested: str | tf.distribute.Strategy | None
) -> Placement:
    """Returns the strategy and the device on which to train a model.

    Args:
        model: The model, built.
        requested: A name, a strategy, or `None` for the one in whose scope the model
            was built. With `"auto"`, a model that was built in a scope stays there.

    Raises:
        TrainingError: There is no such strategy, or the call is in the scope of another
            one.
    """
    placement = _placement(model, requested)
    current = tf.distribute.get_strategy()
    if tf.distribute.has_strategy() and current is not placement.strategy:
        raise TrainingError(
            f"tlkit.fit was called in the scope of a {_class_name(current)}, and is to "
            f"train with another, a {_class_name(placement.strategy)}. Call it outside "
            "any scope; the model may be built inside:\n"
            "    with strategy.scope():\n"
            "        model = …\n"
            "    tlkit.fit(model, …, strategy=strategy)"
        )
    return placement


def _placement(
    model: keras.Model, requested: str | tf.distribute.Strategy | None
) -> Placement:
    scopes = _scopes(model)
    scope = scopes[0] if len(scopes) == 1 else None
    # Creating a second strategy of these classes would erase the TPU's memory, or fail.
    unique = {
        "tpu": tf.distribute.TPUStrategy,
        "multi_worker": tf.distribute.MultiWorkerMirroredStrategy,
    }
    by_name = scope is not None and isinstance(requested, str)
    if by_name and (
        requested == "auto" or isinstance(scope, unique.get(requested, ()))
    ):
        return Placement(scope)
    if requested is None:
        chosen = scope or tf.distribute.get_strategy()
    else:
        chosen = strategy(requested)
    if chosen is scope or (by_name and _is_equivalent(chosen, scope)):
        return Placement(scope)
    if scopes in ([], [None]):
        if is_default(chosen):
            return Placement(chosen)
        if isinstance(chosen, tf.distribute.OneDeviceStrategy):
            # The strategy rejects variables from outside its scope. Running on its
            # device without the strategy works with any variables.
            device = chosen.extended.worker_devices[0]
            if all(variable.value.device == device for variable in model.variables):
                return Placement(tf.distribute.get_strategy(), device)
    return Placement(chosen, copy=True)


def check_batch_size(batch_size: int, strategy: tf.distribute.Strategy) -> None:
    """Raises a `DataError` if a batch has fewer examples than there are replicas."""
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise DataError(
            f"batch_size={batch_size} is the size of a batch over all replicas, and "
            f"less than the {replicas} replicas of the {_class_name(strategy)}: some "
            f"would get no example. Type batch_size={replicas} or a multiple of it, or "
            "strategy='cpu' or 'gpu' for one device."
        )


# === Kinds of strategies ===


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy runs on a TPU, which needs static shapes."""
    return isinstance(strategy, tf.distribute.TPUStrategy)


def is_default(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether a strategy is the one that TensorFlow has outside any scope."""
    return _class_name(strategy) == "_DefaultDistributionStrategy"


def _scopes(model: keras.Model) -> list[tf.distribute.Strategy | None]:
    """Returns the strategies in whose scopes a model was built; `None` for no scope."""
    scopes = []
    for variable in model.variables:
        scope = getattr(variable.value, "distribute_strategy", None)
        scope = None if scope is None or is_default(scope) else scope
        if scope not in scopes:
            scopes.append(scope)
    return scopes


def _is_equivalent(one: tf.distribute.Strategy, other: tf.distribute.Strategy) -> bool:
    same_class = type(one) is type(other)
    return same_class and one.extended.worker_devices == other.extended.worker_devices


def _class_name(strategy: tf.distribute.Strategy) -> str:
    return type(strategy).__name__


# === Creating strategies ===


def _best_name() -> str:
    cluster = read_cluster(os.environ)
    if cluster is not None and len(cluster.addresses) > 1:
        return "multi_worker"
    if tf.config.list_physical_devices("TPU"):
        return "tpu"
    gpus = len(tf.config.list_logical_devices("GPU"))
    return ("cpu", "gpu")[gpus] if gpus < 2 else "mirrored"


def _create(name: str) -> tf.distribute.Strategy:
    if name == "cpu":
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    if name == "gpu":
        if not tf.config.list_logical_devices("GPU"):
            raise TrainingError(
                f"TensorFlow finds no GPU. The devices are: {_device_list()}. Type "
                "strategy='auto' to use these, or install "
                'pip install "tensorflow[and-cuda]" if the machine has a GPU.'
            )
        return tf.distribute.OneDeviceStrategy("/gpu:0")
    if name == "mirrored":
        devices = tf.config.list_logical_devices
        return tf.distribute.MirroredStrategy(
            [device.name for device in devices("GPU") or devices("CPU")]
        )
    return connect() if name == "multi_worker" else _connect_tpu()


def _device_list() -> str:
    """Returns the number of devices of each type, for an error message."""
    types = collections.Counter(d.device_type for d in tf.config.list_logical_devices())
    return ", ".join(f"{count} {name}" for name, count in types.items()) or "none"


def _connect_tpu() -> tf.distribute.Strategy:
    """Returns a strategy for the TPU of this machine, or the one in the environment."""
    errors = []
    for address in ("local", None):
        try:
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=address)
            tf.config.experimental_connect_to_cluster(resolver)
            tf.tpu.experimental.initialize_tpu_system(resolver)
            return tf.distribute.TPUStrategy(resolver)
        except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
            errors.append(error)
    raise TrainingError(
        f"TensorFlow {tf.__version__} finds no TPU. The devices are: {_device_list()}. "
        f"On this machine: {_first_sentence(errors[0])} By the environment (TPU_NAME): "
        f"{_first_sentence(errors[1])} Type strategy='auto' to use these devices. If "
        "the machine has a TPU, its TensorFlow is the package tensorflow-tpu: pip "
        'install "tensorflow-tpu==2.20.*" --find-links='
        "https://storage.googleapis.com/libtpu-tf-releases/index.html"
    ) from errors[0]


def _first_sentence(error: Exception) -> str:
    return str(error).strip().splitlines()[0].split(". ")[0][:200].rstrip(".") + "."
