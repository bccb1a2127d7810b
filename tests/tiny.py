"""Tiny encoders in TF Hub's form, written by the tests that need one."""

import functools
import pathlib
import shutil
import tempfile

import numpy as np
import tensorflow as tf

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "##s", "the", "!"]


class _Images(tf.Module):
    """Two convolutions with batch norms; float32 [batch, h, w, 3] to [batch, 6]."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0)
        self.variables_, self.statistics = {}, {}
        for k, (before, after) in enumerate([(3, 4), (4, 6)], start=1):
            scope = f"stage{k}/conv"
            kernel = random.normal(size=(3, 3, before, after)).astype(np.float32) / 3
            self._add(f"{scope}/kernel", kernel)
            self._add(f"{scope}_bn/gamma", np.ones(after, np.float32))
            self._add(f"{scope}_bn/beta", np.zeros(after, np.float32))
            for name, value in (("moving_mean", 0.0), ("moving_variance", 1.0)):
                self.statistics[f"{scope}_bn/{name}"] = tf.Variable(
                    np.full(after, value, np.float32),
                    trainable=False,
                    name=f"{scope}_bn/{name}",
                )
        self.regularization_losses = []

    def _add(self, name, value):
        self.variables_[name] = tf.Variable(value, name=name)

    def _stage(self, x, scope, training):
        x = tf.nn.conv2d(x, self.variables_[f"{scope}/kernel"], 2, "SAME")
        mean = self.statistics[f"{scope}_bn/moving_mean"]
        variance = self.statistics[f"{scope}_bn/moving_variance"]
        scale = self.variables_[f"{scope}_bn/gamma"]
        offset = self.variables_[f"{scope}_bn/beta"]
        x, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
            x,
            scale,
            offset,
            *(() if training else (mean, variance)),
            epsilon=1e-3,
            is_training=training,
        )
        if training:
            mean.assign_sub((mean - batch_mean) * 0.1)
            variance.assign_sub((variance - batch_variance) * 0.1)
        return tf.nn.relu(x)

    @tf.function
    def __call__(self, inputs, training=False):
        x = self._stage(inputs, "stage1/conv", training)
        x = self._stage(x, "stage2/conv", training)
        return tf.reduce_mean(x, axis=[1, 2])


class _Texts(tf.Module):
    """Embeddings and two layers; dict of int32 [batch, length] to a dict."""

    def __init__(self, vocabulary: pathlib.Path):
        super().__init__()
        random = np.random.default_rng(1)
        self.vocab_file = tf.saved_model.Asset(str(vocabulary))
        self.do_lower_case = tf.Variable(True, trainable=False, dtype=tf.bool)
        shapes = {"word_embeddings/embeddings": (len(PIECES), 8)}
        shapes |= {f"transformer/layer_{k}/kernel": (8, 8) for k in (0, 1)}
        shapes |= {"pooler_transform/kernel": (8, 8)}
        self.variables_ = {
            name: tf.Variable(random.normal(size=shape).astype(np.float32), name=name)
            for name, shape in shapes.items()
        }

    @tf.function
    def __call__(self, inputs, training=False):
        ids, mask = inputs["input_word_ids"], inputs["input_mask"]
        x = tf.nn.embedding_lookup(self.variables_["word_embeddings/embeddings"], ids)
        x += tf.cast(inputs["input_type_ids"], tf.float32)[..., tf.newaxis]
        for k in (0, 1):
            mixed = x @ self.variables_[f"transformer/layer_{k}/kernel"]
            x += tf.tanh(mixed) * tf.cast(mask, tf.float32)[..., tf.newaxis]
            x = tf.nn.dropout(x, 0.1) if training else x
        pooled = tf.tanh(x[:, 0] @ self.variables_["pooler_transform/kernel"])
        return {"pooled_output": pooled, "default": pooled, "sequence_output": x}


def write_image_encoder(folder: pathlib.Path, size=None) -> pathlib.Path:
    """Writes an encoder for pictures: stages of 124 and 240 numbers, 6 features."""
    return shutil.copytree(_image_encoder(size), folder, dirs_exist_ok=True)


@functools.cache
def _image_encoder(size):
    """Writes it once in a process: tracing takes half a second."""
    folder = _folder() / f"images-{size}"
    module = _Images()
    spec = tf.TensorSpec((None, size, size, 3), tf.float32)
    _trace(module, spec)
    tf.saved_model.save(module, str(folder))
    return folder


@functools.cache
def _folder():
    _folder.removed_at_exit = tempfile.TemporaryDirectory()
    return pathlib.Path(_folder.removed_at_exit.name)


def write_text_encoder(folder: pathlib.Path) -> pathlib.Path:
    """Writes an encoder for texts with a vocabulary of ten word pieces, 8 wide."""
    return shutil.copytree(_text_encoder(), folder, dirs_exist_ok=True)


@functools.cache
def _text_encoder():
    folder = _folder() / "texts"
    vocabulary = _folder() / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES) + "\n")
    module = _Texts(vocabulary)
    names = ("input_word_ids", "input_mask", "input_type_ids")
    _trace(module, {name: tf.TensorSpec((None, None), tf.int32) for name in names})
    tf.saved_model.save(module, str(folder))
    return folder


def _trace(module, spec):
    for training in (False, True):
        module.__call__.get_concrete_function(spec, training=training)
