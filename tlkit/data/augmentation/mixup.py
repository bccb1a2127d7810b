"""MixUp and CutMix: blend the examples of a batch in pairs, and their labels."""

import tensorflow as tf

from ...errors import DataError
from .example_seeds import integers, part_seed, uniform

# Inputs, labels float32 [batch, classes], and weights float32 [batch] or None.
Blended = tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]


def one_hot(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Converts labels to float32 `[batch, classes]`.

    Args:
        labels: Integers `[batch]` or `[batch, 1]`; or numbers `[batch, classes]`, which
            are only cast.
        classes: The number of classes.

    Raises:
        DataError: The labels have another shape or dtype.
    """
    shape, dtype = labels.shape, labels.dtype
    if shape.rank == 2 and shape[1] == classes and (dtype.is_floating or classes > 1):
        return tf.cast(labels, tf.float32)
    if dtype.is_integer and (shape.rank == 1 or shape.rank == 2 and shape[1] == 1):
        return tf.one_hot(tf.reshape(labels, (-1,)), classes)
    raise DataError(
        "MixUp and CutMix blend classes: labels must be integers [batch], or numbers "
        f"[batch, {classes}]; got {dtype.name} {shape}. Switch them off for other "
        "tasks. Type: mix_up=0, cut_mix=0"
    )


def mix_up(
    inputs: tf.Tensor,
    labels: tf.Tensor,
    *,
    weights: tf.Tensor | None,
    seed: tf.Tensor,
    alpha: float,
) -> Blended:
    """Averages every example with another of the batch, with random fractions.

    "mixup: Beyond empirical risk minimization" (arXiv 1710.09412). The fractions are
    drawn from the beta distribution with the parameters `alpha` and `alpha`.

    Args:
        inputs: Float32 `[batch, …]`: images, or anything else that can be averaged.
        labels: Float32 `[batch, classes]`.
        weights: Float32 `[batch]`, or `None` if every example has weight 1.
        seed: Int32 or int64 `[2]`.
        alpha: Positive. A small one changes most examples little; at 1 all fractions
            are equally likely.
    """
    fraction = _beta(part_seed(seed, 0), tf.shape(labels)[:1], alpha)
    partner = _partners(part_seed(seed, 1), tf.shape(labels)[0])
    wide = tf.reshape(fraction, [-1] + [1] * (inputs.shape.rank - 1))
    blended = wide * inputs + (1 - wide) * partner(inputs)
    blended = tf.ensure_shape(blended, inputs.shape)
    return blended, *_blended_labels(fraction, labels, weights, partner)


def cut_mix(
    pixels: tf.Tensor,
    labels: tf.Tensor,
    *,
    weights: tf.Tensor | None,
    seed: tf.Tensor,
    alpha: float,
) -> Blended:
    """Pastes a window of another image of the batch into every image.

    "CutMix: Regularization strategy to train strong classifiers with localizable
    features" (arXiv 1905.04899). The fraction of an image that remains is drawn from
    the beta distribution with the parameters `alpha` and `alpha`, and the center of the
    window uniformly. The window is clipped to the image. Labels are blended by the
    fraction of pixels that were pasted. Arguments are as for `mix_up`.

    Raises:
        DataError: The inputs are not images, `[batch, height, width, channels]`.
    """
    if pixels.shape.rank != 4:
        raise DataError(
            "CutMix needs images, [batch, height, width, channels]; got inputs of "
            f"shape {pixels.shape}. MixUp takes any. Type: cut_mix=0, mix_up=0.2"
        )
    batch, height, width = tf.unstack(tf.shape(pixels)[:3])
    length = tf.sqrt(1 - _beta(part_seed(seed, 0), batch[tf.newaxis], alpha))
    centers = uniform(part_seed(seed, 2), (2, batch))
    rows, high = _span(centers[0], length, height)
    columns, wide = _span(centers[1], length, width)
    inside = rows[:, :, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis, :, tf.newaxis]
    partner = _partners(part_seed(seed, 1), batch)
    pasted = tf.where(inside, partner(pixels), pixels)
    pasted = tf.ensure_shape(pasted, pixels.shape)
    area = tf.cast(high * wide, tf.float32) / tf.cast(height * width, tf.float32)
    return pasted, *_blended_labels(1 - area, labels, weights, partner)


def either(seed: tf.Tensor, *functions) -> Blended:
    """Calls one of several functions, all equally likely."""
    if len(functions) == 1:
        return functions[0]()
    return tf.switch_case(integers(seed, below=len(functions)), functions)


def _span(center: tf.Tensor, fraction: tf.Tensor, length: tf.Tensor):
    """Returns which rows or columns each window has, `[batch, length]`, and counts."""
    total = tf.cast(length, tf.float32)
    half = tf.cast(tf.round(fraction * total), tf.int32) / 2
    half = tf.cast(half, tf.float32)
    start = tf.cast(tf.round(center * total - half), tf.int32)
    end = tf.cast(tf.round(center * total + half), tf.int32)
    start, end = tf.maximum(start, 0), tf.minimum(end, length)
    indices = tf.range(length)
    inside = (indices >= start[:, tf.newaxis]) & (indices < end[:, tf.newaxis])
    return inside, end - start


def _beta(seed: tf.Tensor, shape: tf.Tensor, alpha: float) -> tf.Tensor:
    shape = tf.concat([[2], shape], axis=0)
    draws = tf.random.stateless_gamma(shape, seed, alpha)
    return draws[0] / (draws[0] + draws[1])


def _partners(seed: tf.Tensor, batch: tf.Tensor):
    """Returns a function that replaces each example's values by another example's.

    The other example is a random one of the batch. A single example is its own partner.
    """
    shift = 1 + integers(seed, below=tf.maximum(batch - 1, 1))
    return lambda values: tf.roll(values, shift, axis=0)


def _blended_labels(fraction, labels, weights, partner):
    """Blends the labels and weights of pairs of examples.

    The blended loss is the sum of both examples' losses, times fraction and weight.
    """
    first, second = fraction, 1 - fraction
    if weights is not None:
        first, second = first * weights, second * partner(weights)
        weights = first + second
        # If both weights are 0, any fraction will do, but 0 / 0 would be NaN.
        safe = tf.where(weights > 0, weights, 1)
        first = tf.where(weights > 0, first / safe, fraction)
        second = 1 - first
    blended = first[:, tf.newaxis] * labels + second[:, tf.newaxis] * partner(labels)
    return tf.ensure_shape(blended, labels.shape), weights
