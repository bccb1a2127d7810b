"""BERT as the TensorFlow Model Garden exports it, with the same variable names.

Published encoders of this form: tensorflow/bert_en_uncased_*, small_bert, experts.

Tested in tests/samples/test_sample_encoders.py.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from .reusable_sample import Variables

INPUTS = {
    name: tf.TensorSpec([None, None], tf.int32, name)
    for name in ("input_word_ids", "input_mask", "input_type_ids")
}

_DROPOUT = 0.1
_EPSILON = 1e-12

_LAYER = {
    "self_attention/query": "attention.self.query",
    "self_attention/key": "attention.self.key",
    "self_attention/value": "attention.self.value",
    "self_attention/attention_output": "attention.output.dense",
    "self_attention_layer_norm": "attention.output.LayerNorm",
    "intermediate": "intermediate.dense",
    "output": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}


def from_hugging_face(
    weights: Mapping[str, np.ndarray], *, layers: int, heads: int
) -> dict[str, np.ndarray]:
    """Renames and reshapes the weights of a Hugging Face `BertModel`.

    Args:
        weights: Arrays by their names in the Hugging Face checkpoint.
        layers: Number of transformer layers.
        heads: Number of attention heads.

    Returns:
        Arrays by their names in the Model Garden, in the Model Garden's order.
    """
    renamed = {
        "word_embeddings/embeddings": weights["embeddings.word_embeddings.weight"],
        "position_embedding/embeddings": weights[
            "embeddings.position_embeddings.weight"
        ],
        "type_embeddings/embeddings": weights[
            "embeddings.token_type_embeddings.weight"
        ],
    }
    renamed |= _pair(weights, "embeddings.LayerNorm", "embeddings/layer_norm")
    for index in range(layers):
        for target, source in _LAYER.items():
            path = f"transformer/layer_{index}/{target}"
            pair = _pair(weights, f"encoder.layer.{index}.{source}", path)
            renamed |= {name: _by_head(name, pair[name], heads) for name in pair}
    return renamed | _pair(weights, "pooler.dense", "pooler_transform")


def _pair(
    weights: Mapping[str, np.ndarray], source: str, target: str
) -> dict[str, np.ndarray]:
    weight, bias = weights[f"{source}.weight"], weights[f"{source}.bias"]
    if "LayerNorm" in source:
        return {f"{target}/gamma": weight, f"{target}/beta": bias}
    return {f"{target}/kernel": weight.T, f"{target}/bias": bias}


def _by_head(name: str, value: np.ndarray, heads: int) -> np.ndarray:
    """Splits the width of an attention projection into heads."""
    if name.endswith(("query/kernel", "key/kernel", "value/kernel")):
        return value.reshape(value.shape[0], heads, -1)
    if name.endswith(("query/bias", "key/bias", "value/bias")):
        return value.reshape(heads, -1)
    if name.endswith("attention_output/kernel"):
        return value.reshape(heads, -1, value.shape[1])
    return value


def forward(
    variables: Variables, inputs: dict[str, tf.Tensor], training: bool
) -> dict[str, tf.Tensor | list[tf.Tensor]]:
    """Computes the encoder's outputs.

    Args:
        variables: Variables by their names in the Model Garden.
        inputs: Token ids, mask and segment ids, each int32 `[batch, length]`.
        training: Whether dropout is on.

    Returns:
        `default` and `pooled_output` `[batch, width]`, `sequence_output`
        `[batch, length, width]` and `encoder_outputs`, a list with one such tensor per
        layer.
    """
    hidden = _dropout(_embed(variables, inputs), training)
    mask = tf.cast(inputs["input_mask"], hidden.dtype)[:, None, None, :]
    blocked = (1.0 - mask) * -1e9
    outputs = []
    while f"transformer/layer_{len(outputs)}/output/kernel" in variables:
        scope = f"transformer/layer_{len(outputs)}"
        hidden = _transformer_layer(variables, scope, hidden, blocked, training)
        outputs.append(hidden)
    with tf.name_scope("pooler_transform/"):
        pooled = tf.tanh(
            tf.matmul(hidden[:, 0, :], variables["pooler_transform/kernel"])
            + variables["pooler_transform/bias"]
        )
    return {
        "default": pooled,
        "pooled_output": pooled,
        "sequence_output": hidden,
        "encoder_outputs": outputs,
    }


def _embed(variables: Variables, inputs: dict[str, tf.Tensor]) -> tf.Tensor:
    with tf.name_scope("embeddings/"):
        words = tf.nn.embedding_lookup(
            variables["word_embeddings/embeddings"], inputs["input_word_ids"]
        )
        length = tf.shape(inputs["input_word_ids"])[1]
        positions = variables["position_embedding/embeddings"][:length]
        types = variables["type_embeddings/embeddings"]
        # Not a lookup: for a few types, a product's gradient is dense and fast.
        segments = tf.einsum(
            "blt,tw->blw",
            tf.one_hot(inputs["input_type_ids"], types.shape[0], dtype=types.dtype),
            types,
        )
        return _layer_norm(
            variables, "embeddings/layer_norm", words + positions + segments
        )


def _transformer_layer(
    variables: Variables,
    scope: str,
    hidden: tf.Tensor,
    blocked: tf.Tensor,
    training: bool,
) -> tf.Tensor:
    with tf.name_scope(f"{scope}/"):
        attended = _attention(
            variables, f"{scope}/self_attention", hidden, blocked, training
        )
        hidden = _layer_norm(
            variables,
            f"{scope}/self_attention_layer_norm",
            hidden + _dropout(attended, training),
        )
        wide = _project(variables, f"{scope}/intermediate", "blw,wf->blf", hidden)
        # The approximate GELU, as in the Model Garden. The weights were trained with
        # the exact one; the outputs differ by a thousandth of their scale.
        wide = tf.nn.gelu(wide, approximate=True)
        narrow = _project(variables, f"{scope}/output", "blf,fw->blw", wide)
        return _layer_norm(
            variables, f"{scope}/output_layer_norm", _dropout(narrow, training) + hidden
        )


def _attention(
    variables: Variables,
    scope: str,
    hidden: tf.Tensor,
    blocked: tf.Tensor,
    training: bool,
) -> tf.Tensor:
    query, key, value = (
        _project(variables, f"{scope}/{name}", "blw,whd->blhd", hidden)
        for name in ("query", "key", "value")
    )
    query *= query.shape[-1] ** -0.5
    scores = tf.einsum("bkhd,bqhd->bhqk", key, query) + blocked
    weights = _dropout(tf.nn.softmax(scores), training)
    mixed = tf.einsum("bhqk,bkhd->bqhd", weights, value)
    return _project(variables, f"{scope}/attention_output", "blhd,hdw->blw", mixed)


def _project(
    variables: Variables, scope: str, equation: str, inputs: tf.Tensor
) -> tf.Tensor:
    with tf.name_scope(f"{scope}/"):
        product = tf.einsum(equation, inputs, variables[f"{scope}/kernel"])
        return product + variables[f"{scope}/bias"]


def _layer_norm(variables: Variables, scope: str, inputs: tf.Tensor) -> tf.Tensor:
    with tf.name_scope(f"{scope}/"):
        mean, variance = tf.nn.moments(inputs, axes=[-1], keepdims=True)
        return tf.nn.batch_normalization(
            inputs,
            mean,
            variance,
            offset=variables[f"{scope}/beta"],
            scale=variables[f"{scope}/gamma"],
            variance_epsilon=_EPSILON,
        )


def _dropout(inputs: tf.Tensor, training: bool) -> tf.Tensor:
    return tf.nn.dropout(inputs, _DROPOUT) if training else inputs
