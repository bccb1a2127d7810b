"""Publishes a fine-tuned encoder as others publish theirs: a reusable SavedModel.

A text encoder's preprocessor as a SavedModel of its own, in TF Hub's form.

https://www.tensorflow.org/hub/common_saved_model_apis/text
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from ..encoders import Encoder, find_encoder, make_reusable, write_block_map
from ..encoders.saved_model import outside_strategy
from ..errors import ExportError, import_extra
from ..models.text import Packing, WordPiecePreprocessor, keep
from ..sources import resolve
from ..sources.catalog import Card, write_card
from .versions import next_version, write_version


def publish(
    model: keras.Model | Encoder,
    directory: str | os.PathLike,
    *,
    version: int | None = None,
    verbose: int = 1,
) -> pathlib.Path:
    """Writes the encoder as a SavedModel that others can fine-tune in turn.

    It is in TF Hub's reusable form: `__call__(inputs, training=False)`, `variables`,
    `trainable_variables` and `regularization_losses`. `hub.KerasLayer(path,
    trainable=True)` in tf_keras, `hub.load(path)` and `tlkit.load_encoder(path)` take
    it, and so does plain TensorFlow, without `tlkit`. What is frozen at the moment is
    as learnable in it as the rest; with `training=True` dropout is on everywhere, and
    batch norms use the batch's statistics and update their averages.

    A text encoder keeps its vocabulary, and its preprocessor (strings `[batch]` to
    int32 `[batch, length]` of each input, by TF Text) stands beside it, in
    `<directory>_preprocess/<version>`. That is a model of its own, with a name as TF
    Hub's have, so a server that polls `<directory>` only finds the encoder there.

    `assets.extra/tlkit_blocks.json` says which variables each block has.

    Args:
        model: An encoder, or a model with one in it; the rest of the model is left out.
        directory: The encoder's folder, such as `"saved_models/flowers_encoder"`.
        version: Number of the version; the next free one if `None`.
        verbose: 0 is silent, 1 says what was written.

    Returns:
        The folder `<directory>/<version>`.

    Raises:
        ExportError: There is no encoder in the model, the version is there already, the
            folder cannot be written, or the network cannot be in a SavedModel.
        PlanError: There are several encoders in the model.
        SourceError: The encoder's preprocessor could not be fetched.

    Example:

    ```python
    tlkit.fit(model, splits, schedule=tlkit.head_then_all())
    path = tlkit.publish(model, "saved_models/flowers_encoder")
    again = tlkit.image_classifier(path, ["rose", "tulip"])
    ```
    """
    encoder, directory = _encoder_in(model), pathlib.Path(directory)
    directory = directory if directory.name.strip(".") else directory.resolve()
    beside = pathlib.Path(f"{directory}_preprocess")
    write_preprocessor = preprocessor_writer(encoder, verbose=verbose)
    if version is None and write_preprocessor is not None:
        version = max(next_version(directory), next_version(beside))
    made: list[pathlib.Path] = []

    def write(folder: pathlib.Path) -> None:
        # Variables that are made in a strategy's scope would be the strategy's.
        outside_strategy(lambda: _write(encoder, folder))
        if encoder.details.get("kind") in ("image", "text"):
            write_card(folder, _card(model, encoder, directory, version))
        if write_preprocessor is not None:
            made.append(write_version(beside, version, write_preprocessor))

    try:
        path = write_version(directory, version, write)
    except BaseException:
        for folder in made:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if verbose:
        _say(encoder, [path, *made])
    return path


def _encoder_in(model: keras.Model | Encoder) -> Encoder:
    encoder = find_encoder(model) if isinstance(model, keras.layers.Layer) else None
    if encoder is None:
        raise ExportError(
            "tlkit.publish writes an encoder of tlkit.load_encoder, or the one in a "
            f"model. Received: {model!r}. A Keras model becomes an encoder with "
            "tlkit.load_encoder(model)."
        )
    return encoder


def _write(encoder: Encoder, folder: pathlib.Path) -> None:
    reusable = make_reusable(encoder)
    with tempfile.TemporaryDirectory(prefix="tlkit-vocabulary-") as place:
        _add_vocabulary(reusable.module, encoder.details, pathlib.Path(place))
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(reusable.module, str(folder), options=options)
    write_block_map(folder, encoder.blocks, reusable.names)


def _add_vocabulary(
    module: tf.Module, details: Mapping[str, Any], place: pathlib.Path
) -> None:
    """Adds `vocab_file` and `do_lower_case`, as Model Garden's exporter has them."""
    if not details.get("vocabulary"):
        return
    path = place / "vocab.txt"
    path.write_text("\n".join(details["vocabulary"]) + "\n", encoding="utf-8")
    module.vocab_file = tf.saved_model.Asset(str(path))
    module.do_lower_case = tf.Variable(
        details["lower_case"], trainable=False, name="do_lower_case"
    )


def _card(
    model: keras.Model | Encoder,
    encoder: Encoder,
    directory: pathlib.Path,
    version: int | None,
) -> Card:
    details = encoder.details
    kind, preprocessor = details["kind"], None
    if details.get("preprocessor") and not details.get("vocabulary"):
        preprocessor = f"../../{directory.name}_preprocess/{version}"
    return Card(
        name=directory.name,
        kind=kind,
        image_size=_image_size(model, encoder) if kind == "image" else None,
        pixels=(details.get("pixels") or "unit") if kind == "image" else "none",
        preprocessor=preprocessor,
        licence=details.get("licence") or "",
        tried=True,
        note=f"fine-tuned with tlkit from {details.get('name') or encoder.name}",
    )


def _image_size(model: keras.Model | Encoder, encoder: Encoder) -> int | None:
    """Height and width that the model takes, if they are one number."""
    shape = getattr(model, "input_shape", None) if model is not encoder else None
    height, width = tuple(shape)[1:3] if isinstance(shape, tuple) else (None, None)
    if height is not None and height == width:
        return height
    return encoder.details.get("image_size")


def _say(encoder: Encoder, paths: list[pathlib.Path]) -> None:
    name = encoder.details.get("name") or encoder.name
    places = " and its preprocessor in ".join(str(path) for path in paths)
    count = len(encoder.blocks)
    blocks = "one block" if count == 1 else f"{count} blocks"
    print(f"Published {name} ({blocks}) in {places}", file=sys.stderr, flush=True)


# === Preprocessors ===


_SPECIAL = ("[CLS]", "[SEP]")


def preprocessor_writer(
    encoder: Encoder, *, verbose: int = 1
) -> Callable[[pathlib.Path], None] | None:
    """What writes an encoder's preprocessor into a folder.

    Args:
        encoder: The encoder.
        verbose: 0 is silent, 1 shows progress where it has to be fetched.

    Returns:
        A function of the folder; `None` where no preprocessor is known, or none is
        needed, since the encoder takes pictures or strings.

    Raises:
        SourceError: The preprocessor could not be fetched.
    """
    details = encoder.details
    words = _word_pieces(encoder)
    if words is not None:
        return lambda folder: _write_preprocessor(words, folder)
    if details.get("preprocessor"):
        found = resolve(details["preprocessor"], verbose=verbose).path
        return lambda folder: _copy(found, folder)
    return None


def _word_pieces(encoder: Encoder) -> WordPiecePreprocessor | None:
    """That of an encoder with BERT's vocabulary and inputs."""
    details = encoder.details
    vocabulary = tuple(details.get("vocabulary") or ())
    if not {*_SPECIAL, "[PAD]"} <= set(vocabulary):
        return None
    packing = Packing.of(details, pairs=False, windows=1, overlap=0)
    packing = dataclasses.replace(packing, fixed_length=True)
    words = WordPiecePreprocessor(vocabulary, details["lower_case"], packing)
    inputs = encoder.inputs_spec
    fitting = isinstance(inputs, dict) and set(inputs) == set(words.names)
    return words if fitting else None


def _copy(source: pathlib.Path, folder: pathlib.Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _write_preprocessor(words: WordPiecePreprocessor, folder: pathlib.Path) -> None:
    module = _Preprocessor(words)
    for segments in (1, 2):
        ragged = tf.RaggedTensorSpec([None, None], tf.int32)
        length = tf.TensorSpec([], tf.int32)
        module.bert_pack_inputs.get_concrete_function([ragged] * segments, length)
    tf.saved_model.save(module, str(folder))


class _Preprocessor(tf.Module):
    """Texts `[n]` to int32 `[n, length]` of each of the encoder's inputs.

    And as TF Hub's have it, the same in two steps for pairs of texts and for other
    lengths: `bert_pack_inputs([tokenize(texts), …], seq_length)`.
    """

    def __init__(self, words: WordPiecePreprocessor):
        super().__init__(name="preprocessor")
        text = import_extra("tensorflow_text", "text", "a text encoder's preprocessor")
        packing, texts = words.packing, tf.TensorSpec([None], tf.string)
        special = [words.vocabulary.index(piece) for piece in _SPECIAL]
        tokenizer = text.FastBertTokenizer(
            vocab=list(words.vocabulary),
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=words.lower_case,
        )

        def pack(inputs, seq_length=packing.length):
            count = seq_length - 1 - len(inputs)
            if len(inputs) == 1:
                segments = [keep(*inputs, count, packing.truncation)]
            else:  # the longer one loses tokens, at its end
                segments = text.RoundRobinTrimmer(count).trim(list(inputs))
            ids, types = text.combine_segments(segments, *special)
            rows = (ids, tf.ones_like(ids), types)
            return words.pad(dict(zip(words.names, rows, strict=True)), seq_length)

        # AutoGraph cannot convert what is cached, and has nothing to do here.
        self.__call__ = tf.function(words, input_signature=[texts], autograph=False)
        self.tokenize = tf.function(
            tokenizer.tokenize, input_signature=[texts], autograph=False
        )
        self.bert_pack_inputs = tf.function(pack, autograph=False)
