"""VGG-16 without its top, with the variable names of `keras.applications`.

Tested in tests/samples/test_sample_encoders.py.
"""

import tensorflow as tf

from .reusable_sample import Variables

# Convolutions in each of the five blocks.
DEPTHS = (2, 2, 3, 3, 3)

INPUTS = tf.TensorSpec([None, None, None, 3], tf.float32, "inputs")


def forward(variables: Variables, inputs: tf.Tensor, training: bool) -> tf.Tensor:
    """Computes average-pooled features.

    Args:
        variables: `block1_conv1/kernel`, `block1_conv1/bias` and so on.
        inputs: Float32 `[batch, height, width, 3]`, at least 32 pixels a side: blue,
            green, red in [0, 255] minus (103.94, 116.78, 123.68).
        training: Has no effect: only the top, which is left out, has dropout.

    Returns:
        Float32 `[batch, 512]`.
    """
    del training
    hidden = inputs
    for block, depth in enumerate(DEPTHS, start=1):
        for convolution in range(1, depth + 1):
            scope = f"block{block}_conv{convolution}"
            with tf.name_scope(f"{scope}/"):
                hidden = tf.nn.conv2d(
                    hidden, variables[f"{scope}/kernel"], strides=1, padding="SAME"
                )
                hidden = tf.nn.bias_add(hidden, variables[f"{scope}/bias"])
                hidden = tf.nn.relu(hidden)
        with tf.name_scope(f"block{block}_pool/"):
            hidden = tf.nn.max_pool2d(hidden, ksize=2, strides=2, padding="VALID")
    return tf.reduce_mean(hidden, axis=[1, 2])
