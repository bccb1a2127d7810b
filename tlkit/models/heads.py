"""The layers around an encoder: scaling of pixels, pooling of tokens, and the head."""

from typing import Any

import keras
import tensorflow as tf

from ..errors import EncoderError
from ..tasks import task_from_config

PIXELS = ("unit", "symmetric", "byte", "caffe", "torch")
POOLING = ("pooled", "mean", "both")

# Blue, green and red means of ImageNet in Caffe, 0 to 255; red, green and blue means
# and deviations of ImageNet in torchvision, 0 to 1.
_CAFFE_MEAN = (103.939, 116.779, 123.68)
_TORCH_MEAN, _TORCH_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@keras.saving.register_keras_serializable(package="tlkit")
class Pixels(keras.layers.Layer):
    """Scales pixels from 0…255 to the range that an encoder was trained with.

    Args:
        pixels: `"unit"` for 0…1, `"symmetric"` for -1…1, `"byte"` for 0…255, `"caffe"`
            for blue, green, red in 0…255 minus their means, `"torch"` for 0…1 minus the
            mean, divided by the standard deviation.

    Raises:
        EncoderError: `pixels` is none of these.
    """

    def __init__(self, pixels: str = "unit", **kwargs):
        super().__init__(**kwargs)
        if pixels not in PIXELS:
            raise EncoderError(
                f"pixels must be one of {', '.join(PIXELS)}. Received: {pixels!r}."
            )
        self.pixels = pixels

    def call(self, inputs):
        x = tf.cast(inputs, self.compute_dtype)
        if self.pixels == "unit":
            return x / 255.0
        if self.pixels == "symmetric":
            return x / 127.5 - 1.0
        if self.pixels == "caffe":
            return x[..., ::-1] - tf.constant(_CAFFE_MEAN, x.dtype)
        if self.pixels == "torch":
            mean = tf.constant(_TORCH_MEAN, x.dtype)
            return (x / 255.0 - mean) / tf.constant(_TORCH_DEVIATION, x.dtype)
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"pixels": self.pixels}


@keras.saving.register_keras_serializable(package="tlkit")
class TokenPooling(keras.layers.Layer):
    """Computes one vector for each text from the outputs of a text encoder.

    Args:
        pooling: `"pooled"` for the encoder's pooled output, `"mean"` for the mean over
            the tokens where the mask is 1, `"both"` for the two concatenated.
    """

    def __init__(self, pooling: str = "mean", **kwargs):
        super().__init__(**kwargs)
        if pooling not in POOLING:
            raise EncoderError(
                f"pooling must be one of {', '.join(POOLING)}. Received: {pooling!r}."
            )
        self.pooling = pooling

    def call(self, outputs, mask):
        if self.pooling == "pooled":
            return outputs
        sequence = outputs["sequence_output"] if self.pooling == "both" else outputs
        weights = tf.cast(mask, sequence.dtype)[..., tf.newaxis]
        total = tf.reduce_sum(sequence * weights, axis=1)
        mean = total / tf.maximum(tf.reduce_sum(weights, axis=1), 1.0)
        if self.pooling == "mean":
            return mean
        return tf.concat([outputs["pooled_output"], mean], axis=-1)

    def compute_output_spec(self, outputs, mask):
        shapes = [tensor.shape for tensor in tf.nest.flatten(outputs)]
        width = sum(shape[-1] for shape in shapes)
        dtype = tf.nest.flatten(outputs)[0].dtype
        return keras.KerasTensor((shapes[0][0], width), dtype)

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {"pooling": self.pooling}


@keras.saving.register_keras_serializable(package="tlkit")
class Head(keras.layers.Layer):
    """The new layers on an encoder: dropout, and a dense layer with the task's outputs.

    Args:
        task: The task, such as `tlkit.tasks.Classification`, or its config.
        dropout: Dropout rate of the features, 0 to 1.
    """

    def __init__(self, task, dropout: float = 0.0, **kwargs):
        # Logits are float32 also under mixed precision, since their softmax needs it.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.task = task_from_config(task) if isinstance(task, dict) else task
        self.rate = dropout
        self.dropout = keras.layers.Dropout(dropout, dtype="float32", name="dropout")
        # Zeros, so that the initial loss does not depend on the features (Kolesnikov et
        # al. 2020, Big Transfer, arXiv 1912.11370).
        self.dense = keras.layers.Dense(
            self.task.outputs,
            kernel_initializer="zeros",
            dtype="float32",
            name="dense",
        )

    def build(self, input_shape):
        self.dense.build(input_shape)
        self.built = True

    def call(self, features, training=False):
        return self.dense(self.dropout(features, training=training))

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.task.outputs)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config | {"task": self.task.to_config(), "dropout": self.rate}
