"""MixUp and CutMix: two examples of a batch become one, and so do their labels."""

from __future__ import annotations

import tensorflow as tf

from ...errors import DataError
from .example_seeds import integers, part_seed, uniform

# Inputs, labels float32 [batch, classes], and weights float32 [batch] or None.
Blended = tuple[tf.Tensor, tf.Tensor, tf.Tensor | None]


def one_hot(labels: tf.Tensor, classes: int) -> tf.Tensor:
    """Makes float32 `[batch, classes]` of the numbers of classes, or checks them.

    Args:
        labels: Integers `[batch]` or `[batch, 1]`; or numbers `[batch, classes]`, which
            are taken as they are.
        classes: How many classes there are.

    Raises:
        DataError: The labels have another shape, or are numbers but not of classes.
    """
    shape, dtype = labels.shape, labels.dtype
    if shape.rank == 2 and shape[1] == classes and (dtype.is_floating or classes > 1):
        return tf.cast(labels, tf.float32)
    if dtype.is_integer and (shape.rank == 1 or shape.rank == 2 and shape[1] == 1):
        return tf.one_hot(tf.reshape(labels, (-1,)), classes)
    raise DataError(
        "MixUp and CutMix blend classes: labels must be integers [batch], or numbers "
        f"[batch, {classes}]; got {dtype.name} {shape}. Leave them off for other "
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
    """Blends every example with another of the batch, each with a share of its own.

    "mixup: Beyond empirical risk minimization" (arXiv 1710.09412). Shares are drawn
    from the beta distribution of `alpha` and `alpha`.

    Args:
        inputs: Float32 `[batch, …]`: pictures, or anything else that can be averaged.
        labels: Float32 `[batch, classes]`.
        weights: Float32 `[batch]`, or `None` if every example counts as one.
        seed: Int32 or int64 `[2]`.
        alpha: Positive. Small ones leave most examples nearly as they are, with 1 all
            shares are equally likely.

    Returns:
        Inputs, labels and weights of the same shapes.
    """
    share = _beta(part_seed(seed, 0), tf.shape(labels)[:1], alpha)
    other = _partners(part_seed(seed, 1), tf.shape(labels)[0])
    wide = tf.reshape(share, [-1] + [1] * (inputs.shape.rank - 1))
    blended = wide * inputs + (1 - wide) * other(inputs)
    blended = tf.ensure_shape(blended, inputs.shape)
    return blended, *_blended_labels(share, labels, weights, other)


def cut_mix(
    pixels: tf.Tensor,
    labels: tf.Tensor,
    *,
    weights: tf.Tensor | None,
    seed: tf.Tensor,
    alpha: float,
) -> Blended:
    """Pastes a window of another picture of the batch into every picture.

    "CutMix: Regularization strategy to train strong classifiers with localizable
    features" (arXiv 1905.04899). What is kept of a picture is drawn from the beta
    distribution of `alpha` and `alpha`, and the middle of the window evenly; where it
    sticks out it is cut off. Labels have the shares of the pixels that were pasted.

    Args:
        pixels: Float32 `[batch, height, width, channels]`.
        labels: Float32 `[batch, classes]`.
        weights: Float32 `[batch]`, or `None` if every example counts as one.
        seed: Int32 or int64 `[2]`.
        alpha: Positive.

    Returns:
        Pixels, labels and weights of the same shapes.
    """
    if pixels.shape.rank != 4:
        raise DataError(
            "CutMix needs pictures, [batch, height, width, channels]; got inputs of "
            f"shape {pixels.shape}. MixUp takes any. Type: cut_mix=0, mix_up=0.2"
        )
    batch, height, width = tf.unstack(tf.shape(pixels)[:3])
    length = tf.sqrt(1 - _beta(part_seed(seed, 0), batch[tf.newaxis], alpha))
    middles = uniform(part_seed(seed, 2), (2, batch))
    rows, high = _span(middles[0], length, height)
    columns, wide = _span(middles[1], length, width)
    inside = rows[:, :, tf.newaxis, tf.newaxis] & columns[:, tf.newaxis, :, tf.newaxis]
    other = _partners(part_seed(seed, 1), batch)
    pasted = tf.where(inside, other(pixels), pixels)
    pasted = tf.ensure_shape(pasted, pixels.shape)
    area = tf.cast(high * wide, tf.float32) / tf.cast(height * width, tf.float32)
    return pasted, *_blended_labels(1 - area, labels, weights, other)


def either(seed: tf.Tensor, *ways) -> Blended:
    """Takes one of several ways for a batch, all equally likely."""
    if len(ways) == 1:
        return ways[0]()
    return tf.switch_case(integers(seed, below=len(ways)), ways)


def _span(middle: tf.Tensor, share: tf.Tensor, length: tf.Tensor):
    """Which of the rows are in the windows, `[batch, length]`, and how many."""
    total = tf.cast(length, tf.float32)
    half = tf.cast(tf.round(share * total), tf.int32) / 2
    half = tf.cast(half, tf.float32)
    start = tf.cast(tf.round(middle * total - half), tf.int32)
    end = tf.cast(tf.round(middle * total + half), tf.int32)
    start, end = tf.maximum(start, 0), tf.minimum(end, length)
    places = tf.range(length)
    inside = (places >= start[:, tf.newaxis]) & (places < end[:, tf.newaxis])
    return inside, end - start


def _beta(seed: tf.Tensor, shape: tf.Tensor, alpha: float) -> tf.Tensor:
    shape = tf.concat([[2], shape], axis=0)
    draws = tf.random.stateless_gamma(shape, seed, alpha)
    return draws[0] / (draws[0] + draws[1])


def _partners(seed: tf.Tensor, batch: tf.Tensor):
    """Gives a function that exchanges examples, none with itself if there are two."""
    by = 1 + integers(seed, below=tf.maximum(batch - 1, 1))
    return lambda values: tf.roll(values, by, axis=0)


def _blended_labels(share, labels, weights, other):
    """Blends labels so that the loss is that of both examples, by share and weight."""
    own, rest = share, 1 - share
    if weights is not None:
        own, rest = own * weights, rest * other(weights)
        weights = own + rest
        # Of two examples that do not count the shares do not matter, but 0 / 0 does.
        own = tf.where(weights > 0, own / tf.where(weights > 0, weights, 1), share)
        rest = 1 - own
    blended = own[:, tf.newaxis] * labels + rest[:, tf.newaxis] * other(labels)
    return tf.ensure_shape(blended, labels.shape), weights
