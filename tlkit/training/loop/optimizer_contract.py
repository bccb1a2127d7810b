"""Lists how the training loop treats each method of a Keras optimizer.

The loop applies plain optimizers itself, variable by variable (see `update`). It calls
the `CALLED` methods, so a class may override them. It replaces the `BY_KERAS` methods:
if a class overrides one, Keras's `apply_gradients` makes the whole update instead, on
one replica. A class that overrides a `REFUSED` method cannot be used. `UNUSED` methods
are not called in training, by Keras's `fit` neither.

Tested in tests/training/loop/test_optimizer_contract.py.
"""

from inspect import getattr_static

import keras

from ...errors import TrainingError
from .optimizer import innermost

CALLED, BY_KERAS, REFUSED, UNUSED = "called", "by keras", "refused", "unused"

_NAMES = {
    CALLED: """
        build add_variable add_variable_from_reference add_optimizer_variables
        update_step assign assign_add assign_sub scale_loss learning_rate
        finalize_variable_values exclude_from_weight_decay variables
        _get_current_learning_rate _clip_gradients _clip_by_norm _use_weight_decay
        _overwrite_variable_with_gradient _update_model_variables_moving_average
        _overwrite_model_variables_with_average_value _get_variable_index _var_key
        _check_super_called _track_variable _untrack_variable
    """,
    BY_KERAS: """
        apply apply_gradients _apply_weight_decay _backend_apply_gradients
        _backend_update_step _distributed_tf_update_step _all_reduce_sum_gradients
        _filter_empty_gradients _overwrite_variables_directly_with_gradients
        _check_variables_are_known
    """,
    # The loop sums the gradients of an update itself, and counts the updates.
    REFUSED: """
        iterations _backend_reset_gradient_accumulators
        _backend_increment_gradient_accumulators
    """,
    UNUSED: """
        get_config from_config set_weights save_own_variables load_own_variables
        stateless_apply _obj_type _unpickle_model
    """,
}

# The treatment of each method and property by its name.
METHODS = {name: kind for kind, names in _NAMES.items() for name in names.split()}


def overridden(optimizer: keras.optimizers.Optimizer, kind: str) -> list[str]:
    """Returns the methods of a kind in `METHODS` that an optimizer overrides.

    Of a `LossScaleOptimizer`, it includes the methods of the inner optimizer.
    """
    inner = innermost(optimizer)
    names = _differences(inner, keras.optimizers.Optimizer, kind)
    if inner is not optimizer:
        names += _differences(optimizer, keras.optimizers.LossScaleOptimizer, kind)
    return names


def check_methods(optimizer: keras.optimizers.Optimizer) -> None:
    """Raises a `TrainingError` if an optimizer overrides a method that is refused."""
    names = overridden(optimizer, REFUSED)
    if names:
        raise TrainingError(
            f"{type(innermost(optimizer)).__name__} overrides {' and '.join(names)}, "
            "which the training loop would not call: it accumulates gradients and "
            "counts updates itself. Leave them out, or train with model.fit."
        )


def _differences(optimizer, reference: type, kind: str) -> list[str]:
    names = [name for name, its_kind in METHODS.items() if its_kind == kind]
    return [
        name
        for name in names
        if hasattr(reference, name)  # private names may be missing in another Keras
        and (
            name in vars(optimizer)
            or getattr_static(type(optimizer), name)
            is not getattr_static(reference, name)
        )
    ]
