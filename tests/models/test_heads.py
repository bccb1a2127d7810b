"""The layers around an encoder."""

import keras
import numpy as np
import pytest

from tlkit.errors import EncoderError
from tlkit.models import Head, Pixels, TokenPooling
from tlkit.tasks import Classification

RED = np.array([[[[255.0, 0.0, 51.0]]]], np.float32)


@pytest.mark.parametrize(
    "pixels, expected",
    [
        ("unit", [1.0, 0.0, 0.2]),
        ("symmetric", [1.0, -1.0, -0.6]),
        ("byte", [255.0, 0.0, 51.0]),
        ("caffe", [51.0 - 103.939, -116.779, 255.0 - 123.68]),
        ("torch", [0.515 / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]),
    ],
)
def test_pixels_are_scaled(pixels, expected):
    np.testing.assert_allclose(Pixels(pixels)(RED)[0, 0, 0], expected, rtol=1e-5)


def test_unknown_pixels_raise_an_error():
    with pytest.raises(EncoderError, match="unit, symmetric.*Received: 'percent'"):
        Pixels("percent")


def test_the_mean_is_over_the_tokens_that_the_mask_keeps():
    sequence = np.array([[[1.0, 2.0], [3.0, 6.0], [100.0, 100.0]]], np.float32)
    mask = np.array([[1, 1, 0]], np.int32)
    np.testing.assert_allclose(TokenPooling("mean")(sequence, mask), [[2.0, 4.0]])
    both = {"sequence_output": sequence, "pooled_output": np.array([[7.0]], np.float32)}
    np.testing.assert_allclose(TokenPooling("both")(both, mask), [[7.0, 2.0, 4.0]])
    np.testing.assert_allclose(TokenPooling("pooled")(sequence[:, 0], mask), [[1, 2]])


def test_a_text_without_tokens_has_a_finite_mean():
    pooled = TokenPooling("mean")(np.ones((1, 2, 3), np.float32), np.zeros((1, 2)))
    np.testing.assert_array_equal(pooled, np.zeros((1, 3)))


def test_unknown_pooling_raises_an_error():
    with pytest.raises(EncoderError, match="pooled, mean, both.*Received: 'max'"):
        TokenPooling("max")


def test_a_head_starts_at_even_odds_and_comes_back_from_its_config():
    head = Head(Classification(("a", "b", "c")), 0.5, name="head")
    features = np.random.default_rng(0).normal(size=(4, 8)).astype(np.float32)
    np.testing.assert_array_equal(head(features), np.zeros((4, 3)))
    again = Head.from_config(head.get_config())
    assert again.task == head.task
    assert (again.rate, again.name) == (0.5, "head")


def test_logits_are_float32_under_mixed_precision():
    with_policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        head = Head(Classification(("a", "b")))
        assert head(np.ones((1, 4), np.float32)).dtype.name == "float32"
    finally:
        keras.config.set_dtype_policy(with_policy)
