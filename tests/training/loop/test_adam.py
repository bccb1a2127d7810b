"""Adam's one op against Keras's many."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tlkit.training.loop.update import adam_step


class OwnAdam(keras.optimizers.Adam):
    def update_step(self, gradient, variable, learning_rate):
        variable.assign_sub(gradient * tf.cast(learning_rate, variable.dtype))


def run_steps(optimizer, step, dtype="float32"):
    """The weight and the two moments after five steps, and how they were made."""
    random = np.random.default_rng(0)
    kernel = keras.Variable(random.normal(size=(6, 5)), dtype=dtype)
    optimizer.build([kernel])
    step = step(optimizer)

    @tf.function(autograph=False)
    def once(gradient):
        step(gradient, kernel.value, tf.constant(0.01))

    for _ in range(5):
        once(tf.constant(random.normal(size=(6, 5)), dtype))
        optimizer.iterations.assign_add(1)
    ops = {
        op.type
        for op in once.get_concrete_function(kernel.value).graph.get_operations()
    }
    moments = [v for v in optimizer.variables if "adam/" in v.path or v.shape == (6, 5)]
    return [v.numpy() for v in (kernel, *moments)], ops


@pytest.mark.parametrize("make", [keras.optimizers.Adam, keras.optimizers.AdamW])
def test_one_op_steps_as_keras_does(make):
    options = {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3}
    ours, ops = run_steps(make(**options), adam_step)
    theirs, others = run_steps(make(**options), lambda optimizer: optimizer.update_step)
    # Without Keras's private names it would be slow, and nothing else would notice.
    assert "ResourceApplyAdam" in ops and "ResourceApplyAdam" not in others
    assert len(ours) == len(theirs) >= 3
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_half_precision_is_left_to_keras():
    ours, ops = run_steps(keras.optimizers.Adam(), adam_step, "bfloat16")
    theirs, _ = run_steps(
        keras.optimizers.Adam(), lambda optimizer: optimizer.update_step, "bfloat16"
    )
    assert "ResourceApplyAdam" not in ops
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "optimizer",
    [keras.optimizers.Adam(amsgrad=True), keras.optimizers.Lion(), OwnAdam()],
    ids=["amsgrad", "Lion", "a subclass"],
)
def test_other_steps_are_left_to_keras(optimizer):
    optimizer.build([keras.Variable([1.0])])
    assert adam_step(optimizer) is None
