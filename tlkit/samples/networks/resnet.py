"""ResNet-50 with the stride in the first convolution of a unit, as in Caffe.

Tested in tests/samples/test_sample_encoders.py.
"""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from .reusable_sample import Variables

# Units in each of the four stages.
DEPTHS = (3, 4, 6, 3)

INPUTS = tf.TensorSpec([None, None, None, 3], tf.float32, "inputs")

# Suffixes of the variables that are not trainable.
STATISTICS = ("moving_mean", "moving_variance")

_EPSILON = 1e-3
_MOMENTUM = 0.99


def unfold(
    convolutions: Iterable[tuple[str, np.ndarray, np.ndarray]],
) -> dict[str, np.ndarray]:
    """Restores batch norms after convolutions into which they were folded.

    A restored batch norm only adds the bias: its mean is 0, its variance 1, and its
    scale compensates the epsilon.

    Args:
        convolutions: Name, kernel `[height, width, in, out]` and bias of each
            convolution.

    Returns:
        Arrays by the names of the variables.
    """
    variables = {}
    for name, kernel, bias in convolutions:
        variables[f"{name}/kernel"] = kernel
        variables[f"{name}_bn/gamma"] = np.full_like(bias, np.sqrt(1 + _EPSILON))
        variables[f"{name}_bn/beta"] = bias
        variables[f"{name}_bn/moving_mean"] = np.zeros_like(bias)
        variables[f"{name}_bn/moving_variance"] = np.ones_like(bias)
    return variables


def forward(variables: Variables, inputs: tf.Tensor, training: bool) -> tf.Tensor:
    """Computes average-pooled features.

    Args:
        variables: `bn_1/kernel`, `bn_1_bn/gamma`, `bn_stage0_block0_branch2a/kernel`
            and so on.
        inputs: Float32 `[batch, height, width, 3]`, blue, green, red in [0, 255] minus
            (103.94, 116.78, 123.68).
        training: Whether batch norms use the statistics of the batch, and update their
            moving statistics.

    Returns:
        Float32 `[batch, channels]`; 1024 channels at half width.
    """
    hidden = _convolve(variables, "bn_1", inputs, training, stride=2, pad=3)
    with tf.name_scope("max_pooling2d/"):
        # Zeros below and to the right; after a ReLU they do not change a maximum.
        hidden = tf.pad(tf.nn.relu(hidden), [[0, 0], [0, 1], [0, 1], [0, 0]])
        hidden = tf.nn.max_pool2d(hidden, ksize=3, strides=2, padding="VALID")
    for stage, depth in enumerate(DEPTHS):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            scope = f"bn_stage{stage}_block{block}"
            hidden = _unit(variables, scope, hidden, training, stride=stride)
    return tf.reduce_mean(hidden, axis=[1, 2])


def _unit(
    variables: Variables, scope: str, inputs: tf.Tensor, training: bool, *, stride: int
) -> tf.Tensor:
    def convolve(
        part: str, hidden: tf.Tensor, *, stride: int = 1, pad: int = 0
    ) -> tf.Tensor:
        name = f"{scope}_{part}"
        return _convolve(variables, name, hidden, training, stride=stride, pad=pad)

    hidden = tf.nn.relu(convolve("branch2a", inputs, stride=stride))
    hidden = tf.nn.relu(convolve("branch2b", hidden, pad=1))
    hidden = convolve("branch2c", hidden)
    if f"{scope}_proj_shortcut/kernel" in variables:
        inputs = convolve("proj_shortcut", inputs, stride=stride)
    return tf.nn.relu(hidden + inputs)


def _convolve(
    variables: Variables,
    name: str,
    inputs: tf.Tensor,
    training: bool,
    *,
    stride: int,
    pad: int,
) -> tf.Tensor:
    with tf.name_scope(f"{name}/"):
        # Equal padding on all sides: "SAME" with stride 2 pads the top and left less.
        if pad:
            inputs = tf.pad(inputs, [[0, 0], [pad, pad], [pad, pad], [0, 0]])
        kernel = variables[f"{name}/kernel"]
        hidden = tf.nn.conv2d(inputs, kernel, strides=stride, padding="VALID")
    return _batch_norm(variables, f"{name}_bn", hidden, training)


def _batch_norm(
    variables: Variables, scope: str, inputs: tf.Tensor, training: bool
) -> tf.Tensor:
    moving = [variables[f"{scope}/{name}"] for name in STATISTICS]
    with tf.name_scope(f"{scope}/"):
        outputs, *batch = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            scale=variables[f"{scope}/gamma"],
            offset=variables[f"{scope}/beta"],
            mean=None if training else moving[0],
            variance=None if training else moving[1],
            epsilon=_EPSILON,
            is_training=training,
        )
        if training:
            for variable, value in zip(moving, batch, strict=True):
                variable.assign_sub((variable - value) * (1 - _MOMENTUM))
    return outputs
