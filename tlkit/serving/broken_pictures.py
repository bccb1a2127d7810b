"""Pictures of a request, of which some may be broken.

Only in tf.data can a graph go on after an error. What a data set costs a request is
mostly its map being made ready, which grows with the ops in it.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from ..data.images.decoder import decode_where_possible
from ..models.pictures import ImagePreprocessor


def decode_each(
    preprocess: ImagePreprocessor, encoded: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes pictures of which some may be broken.

    TF Serving puts requests of several clients into one batch, so that an error would
    be the answer to all of them.

    Args:
        preprocess: Decodes one picture to `[height, width, 3]`.
        encoded: Strings `[batch]`.

    Returns:
        float32 `[batch, height, width, 3]`, zeros for what cannot be decoded, and bool
        `[batch]`: what could be. Of no picture one row of zeros is made, since oneDNN's
        convolutions fail on a batch of none.
    """
    size = (preprocess.height, preprocess.width)
    # What a batch needs costs a single picture a millisecond more.
    pixels, decoded = tf.cond(
        tf.equal(tf.size(encoded), 1),
        lambda: _decode_one(encoded, size),
        lambda: _decode_many(preprocess, encoded, size),
    )
    return tf.ensure_shape(pixels, (None, *size, 3)), decoded


def _decode_one(encoded: tf.Tensor, size: tuple[int, int]):
    pixels = decode_where_possible(encoded[0], size, _or_not_a_number)
    decoded = tf.math.is_finite(pixels[0, 0, 0])
    pixels = tf.cond(decoded, lambda: pixels, lambda: tf.zeros_like(pixels))
    return pixels[tf.newaxis], decoded[tf.newaxis]


def _or_not_a_number(
    function: Callable[[tf.Tensor], tf.Tensor], raw: tf.Tensor, size: tf.Tensor
) -> tf.Tensor:
    row = tf.data.Dataset.from_tensors(raw).map(function).ignore_errors()
    nothing = tf.fill(tf.concat([size, [3]], axis=0), float("nan"))
    row = row.concatenate(tf.data.Dataset.from_tensors(nothing))
    return _plain(row.take(1)).get_single_element()


def _decode_many(
    preprocess: ImagePreprocessor, encoded: tf.Tensor, size: tuple[int, int]
):
    count = tf.size(encoded, out_type=tf.int64)
    rows = tf.data.Dataset.from_tensor_slices((tf.range(count), encoded))
    rows = rows.map(
        lambda index, raw: (index, preprocess(raw)),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    ).ignore_errors()
    # One behind the last, since a batch of nothing cannot be taken out.
    last = tf.data.Dataset.from_tensors((count, tf.zeros((*size, 3))))
    rows = _plain(rows.concatenate(last).batch(count + 1))
    index, pixels = rows.get_single_element()
    places = index[:, tf.newaxis]
    pixels = tf.scatter_nd(places, pixels, [count + 1, *size, 3])
    decoded = tf.scatter_nd(places, tf.ones_like(index), [count + 1])[:count] > 0
    return pixels[: tf.maximum(count, 1)], decoded


def _plain(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without tuning and rewriting, which would cost every request milliseconds."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return dataset.with_options(options)
