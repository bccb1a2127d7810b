"""The largest image that is decoded, and checks that raise an error in a graph.

Tested in tests/data/images/test_decoder.py.
"""

import tensorflow as tf

# A square with sides of 16,384. A pixel takes three bytes, and several images are
# decoded at a time.
MAX_PIXELS = 2**28


def product(sides: tf.Tensor) -> tf.Tensor:
    """Multiplies the sides of an image as float32: in int32 they may overflow."""
    return tf.reduce_prod(tf.cast(sides, tf.float32))


def check_size(
    fits: tf.Tensor, raw: tf.Tensor, width: tf.Tensor, height: tf.Tensor
) -> tf.Tensor:
    """Returns `raw` if `fits` is true, else raises an error with the image's size."""
    hint = (
        f"pixels. At most {MAX_PIXELS:,} pixels are decoded; those of a JPEG are "
        "counted after it is reduced. Make it smaller."
    )
    return check_that(fits, raw, "The image is too large:", width, "by", height, hint)


def check_that(
    condition: tf.Tensor, raw: tf.Tensor, *message: tf.Tensor | str
) -> tf.Tensor:
    """Returns `raw`, or raises an InvalidArgumentError if `condition` is false.

    The error contains each part of `message` in brackets.
    """
    # The raw op, since tf.debugging.Assert has another message when it runs eagerly.
    check = tf.raw_ops.Assert(condition=condition, data=list(message), summarize=1)
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(raw)
