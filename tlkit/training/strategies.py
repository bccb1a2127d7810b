"""Strategies: where a model is trained."""

from __future__ import annotations

import keras
import tensorflow as tf

from ..errors import TrainingError

NAMES = ("auto", "cpu", "gpu", "mirrored", "multi_worker", "tpu")


def strategy(name: str | tf.distribute.Strategy = "auto") -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: `"auto"` for a TPU if there is one, else all GPUs, else the CPU; `"cpu"`
            and `"gpu"` for one device; `"mirrored"` for all GPUs (or all logical CPUs)
            of this machine; `"multi_worker"` for the machines that `TF_CONFIG` names;
            `"tpu"` for the TPU of this machine. A strategy comes back as it is.

    Returns:
        The strategy. Build the model in its scope.

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
    if name == "cpu":
        return tf.distribute.OneDeviceStrategy("/cpu:0")
    if name == "gpu":
        _need_gpu()
        return tf.distribute.OneDeviceStrategy("/gpu:0")
    if name == "mirrored":
        return tf.distribute.MirroredStrategy(_replica_devices())
    if name == "multi_worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    return _tpu()


def place_of(
    model: keras.Model, wanted: str | tf.distribute.Strategy | None
) -> tuple[tf.distribute.Strategy, str | None]:
    """Where a model can be trained as it is wanted.

    Args:
        model: The model.
        wanted: A name, a strategy, or `None` for where the model is.

    Returns:
        The strategy, and the device to stay on, or `None` for any.

    Raises:
        TrainingError: The model was built outside the strategy's scope.
    """
    home = _home(model)
    if wanted is None:
        return home or tf.distribute.get_strategy(), None
    found = strategy(wanted)
    if found is home or (isinstance(wanted, str) and _alike(found, home)):
        return home, None
    if home is None and found.num_replicas_in_sync == 1:
        if isinstance(found, tf.distribute.OneDeviceStrategy):
            # Its scope takes no variables from outside; its device does.
            return tf.distribute.get_strategy(), found.extended.worker_devices[0]
        if _is_default(found):
            return found, None
    where = "outside any strategy" if home is None else f"in a {_kind(home)}"
    raise TrainingError(
        f"The model was built {where}, and cannot be trained by the {_kind(found)} "
        f"with its {found.num_replicas_in_sync} replicas. Build it in the scope:\n"
        "    with strategy.scope():\n"
        "        model = tlkit.text_classifier(…)\n"
        "    tlkit.fit(model, …, strategy=strategy)"
    )


def _home(model: keras.Model) -> tf.distribute.Strategy | None:
    """The strategy in whose scope a model was built; `None` for none."""
    for variable in model.weights:
        home = getattr(variable.value, "distribute_strategy", None)
        # Outside every scope there is a default strategy.
        if home is not None and not _is_default(home):
            return home
    return None


def _is_default(found: tf.distribute.Strategy) -> bool:
    return _kind(found) == "_DefaultDistributionStrategy"


def _alike(one: tf.distribute.Strategy, other: tf.distribute.Strategy | None) -> bool:
    same_kind = type(one) is type(other)
    return same_kind and one.extended.worker_devices == other.extended.worker_devices


def _kind(strategy: tf.distribute.Strategy) -> str:
    return type(strategy).__name__


def _best() -> str:
    if tf.config.list_physical_devices("TPU"):
        return "tpu"
    gpus = len(tf.config.list_logical_devices("GPU"))
    return ("cpu", "gpu")[gpus] if gpus < 2 else "mirrored"


def _need_gpu() -> None:
    if not tf.config.list_logical_devices("GPU"):
        raise TrainingError(
            "TensorFlow sees no GPU here. Type strategy='cpu', or install "
            'pip install "tensorflow[and-cuda]" if the machine has one.'
        )


def _replica_devices() -> list[str]:
    for kind in ("GPU", "CPU"):
        devices = tf.config.list_logical_devices(kind)
        if devices:
            return [device.name for device in devices]
    raise TrainingError("TensorFlow sees no device at all.")


def _tpu() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise TrainingError(
            f"There is no TPU that TensorFlow can use here: {error}. Type "
            "strategy='auto' to take what there is."
        ) from error
