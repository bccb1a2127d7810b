"""Lists which methods of Keras classes `tlkit.fit` calls, and rejects other overrides.

`tlkit.fit` has a training loop of its own. If a user's class overrides a method that
Keras's `fit` calls and this loop does not, the class is rejected, so that no code is
silently ignored. The tables list all public names of each class:
tests/training/test_keras_contract.py compares them with `dir()`, so it fails if a new
release of Keras adds a name. For optimizers see `loop/optimizer_contract.py`.

Results are those of Keras's `fit` (`python -m tests.benchmarks.parity`), with three
differences. In an uneven batch, Keras weights replicas equally, and `tlkit.fit` weights
examples equally. If a batch contains an index of an embedding several times, Adam's
second moment sums the squares of its gradients in Keras, and squares their sum here.
Dropout has other seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from ..errors import TrainingError
from .loop.compiled_model import CompileArguments

_MODEL_FIT = "Use model.fit for this model, or leave the method out."
_METRICS = (
    "Give metrics=…, or keep a keras.metrics.Metric on the model and update it in "
    "`call` or `compute_loss`: fit reports it."
)
_BACKUP = "Give fit a directory, and resume=True to continue."

# Methods that Keras's `fit` calls and `tlkit.fit` does not, with what users should do.
REFUSED: Mapping[type, Mapping[str, str]] = {
    keras.Model: {
        "train_step": f"Override `compute_loss`, which fit calls. {_MODEL_FIT}",
        "test_step": f"Override `compute_loss`, which fit calls. {_MODEL_FIT}",
        "compute_metrics": _METRICS,
        "make_train_function": _MODEL_FIT,
        "make_test_function": _MODEL_FIT,
        "fit": _MODEL_FIT,
        "evaluate": _MODEL_FIT,
        "distribute_reduction_method": _MODEL_FIT,
    },
    keras.losses.Loss: {},
    keras.metrics.Metric: {},
    keras.callbacks.Callback: {},
}

# The methods and properties that `tlkit.fit` uses, as Keras's `fit` does.
CALLED: Mapping[type, Sequence[str]] = {
    keras.Model: """
        __call__ add_loss add_metric add_variable add_weight build call compile
        compiled_loss compiled_metrics compute_dtype compute_loss compute_mask
        compute_output_shape compute_output_spec distribute_strategy dtype dtype_policy
        from_config get_compile_config get_config get_metrics_result input input_dtype
        input_spec jit_compile layers loss losses metrics metrics_names
        metrics_variables non_trainable_variables non_trainable_weights output path
        quantization_mode quantized_call rematerialized_call reset_metrics run_eagerly
        supports_masking symbolic_call trainable trainable_variables trainable_weights
        variable_dtype variables weights
    """.split(),
    keras.losses.Loss: "__call__ call dtype from_config get_config".split(),
    keras.metrics.Metric: """
        add_variable add_weight dtype from_config get_config reset_state result
        update_state variables
    """.split(),
    keras.callbacks.Callback: """
        model on_batch_begin on_batch_end on_epoch_begin on_epoch_end
        on_test_batch_begin on_test_batch_end on_test_begin on_test_end
        on_train_batch_begin on_train_batch_end on_train_begin on_train_end set_model
        set_params
    """.split(),
}

# The methods and properties that neither Keras's `fit` nor `tlkit.fit` uses.
UNUSED: Mapping[type, Sequence[str]] = {
    keras.Model: """
        build_from_config compile_from_config count_params export get_build_config
        get_layer get_quantization_layer_structure get_state_tree get_weights
        load_own_variables load_weights make_predict_function predict predict_on_batch
        predict_step quantize quantized_build save save_own_variables save_weights
        set_state_tree set_weights stateless_call stateless_compute_loss summary
        test_on_batch to_json train_on_batch
    """.split(),
    keras.losses.Loss: [],
    keras.metrics.Metric: """
        __call__ stateless_reset_state stateless_result stateless_update_state
    """.split(),
    keras.callbacks.Callback: """
        on_predict_batch_begin on_predict_batch_end on_predict_begin on_predict_end
    """.split(),
}


def check_contract(
    model: keras.Model,
    arguments: CompileArguments,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Rejects overridden methods that `tlkit.fit` would not call.

    Args:
        model: The model.
        arguments: Those of `compile`.
        callbacks: Keras callbacks.

    Raises:
        TrainingError: A method is overridden, a callback cannot work, or `compile` is
            overridden and would have to be called with `fit`'s arguments.
    """
    losses = keras.tree.flatten(arguments.loss)
    metrics = keras.tree.flatten([arguments.metrics, arguments.weighted_metrics])
    for thing in (model, *losses, *metrics, *callbacks):
        _check_methods(thing)
    if overrides(model, "compile", keras.Model) and not arguments.compiled:
        raise TrainingError(
            f"{type(model).__name__}.compile is overridden, so fit does not call it. "
            "Type: model.compile(…), then tlkit.fit without loss and metrics."
        )
    for callback in callbacks:
        if not isinstance(callback, keras.callbacks.Callback):
            raise TrainingError(
                f"callbacks must be Keras callbacks; got {callback!r:.80}."
            )
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise TrainingError(
                "BackupAndRestore restores the weights, but not the place of fit in "
                f"its schedule. {_BACKUP}"
            )


def _check_methods(thing: Any) -> None:
    for base, refused in REFUSED.items():
        for name, remedy in refused.items():
            if isinstance(thing, base) and overrides(thing, name, base):
                raise TrainingError(
                    f"{type(thing).__name__}.{name} is overridden, and tlkit.fit, "
                    f"which has its own loop, would not call it. {remedy}"
                )


def overrides(thing: Any, name: str, base: type) -> bool:
    """Returns whether a user's class or object overrides a method of a Keras class."""
    if name in vars(thing) and callable(vars(thing)[name]):
        # A function that was assigned to the object, as in `model.train_step = …`.
        return True
    for one in type(thing).__mro__:
        if name in vars(one):
            return one.__module__.split(".")[0] not in ("keras", "tlkit")
    raise AttributeError(f"{base.__name__} has no {name!r}.")
