"""Publishes a fine-tuned encoder, and its preprocessor, in TF Hub's reusable form.

https://www.tensorflow.org/hub/reusable_saved_models
https://www.tensorflow.org/hub/common_saved_model_apis/text
"""

import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import keras
import tensorflow as tf

from ..encoders import (
    Encoder,
    EncoderFacts,
    find_encoder,
    make_reusable,
    write_block_map,
)
from ..encoders.saved_model import outside_strategy
from ..errors import ExportError, import_extra
from ..files import user_path
from ..models import facts_of, packing_of
from ..models.text import WordPiecePreprocessor, truncate
from ..progress import print_line
from ..sources import resolve
from ..sources.catalog import Card, write_card
from .versions import next_version, write_version

_SPECIAL_TOKENS = ("[CLS]", "[SEP]")


def publish(
    model: keras.Model | Encoder,
    directory: str | os.PathLike,
    *,
    version: int | None = None,
    verbose: int = 1,
) -> pathlib.Path:
    """Writes the encoder as a SavedModel that others can fine-tune.

    The SavedModel has TF Hub's reusable form: `__call__(inputs, training=False)`,
    `variables`, `trainable_variables` and `regularization_losses`. It loads without
    `tlkit`, in plain TensorFlow, in `hub.load(path)` and in `hub.KerasLayer(path,
    trainable=True)` of tf_keras, and with `tlkit.load_encoder(path)`. All of its blocks
    are trainable, even if they are frozen in `model`. With `training=True` dropout is
    on everywhere, and batch norms use the batch's statistics and update the averages.

    A text encoder's SavedModel contains its vocabulary. Its preprocessor (strings
    `[batch]` to int32 `[batch, length]` of each input, by TF Text) is written to
    `<directory>_preprocess/<version>`, named as TF Hub names them, so a server that
    polls `<directory>` finds the encoder only.

    `assets.extra/tlkit_blocks.json` lists the variables of each block.

    Args:
        model: An encoder, or a model with one in it. The rest of the model is left out.
        directory: The encoder's folder, such as `"saved_models/flowers_encoder"`.
        version: Number of the version; the next free one if `None`.
        verbose: 0 for silence, 1 to print the folders written.

    Returns:
        The folder `<directory>/<version>`.

    Raises:
        ExportError: There is no encoder in the model, the version exists, the folder
            cannot be written, or the network cannot be saved as a SavedModel.
        PlanError: There are several encoders in the model.
        SourceError: The encoder's preprocessor could not be fetched.

    Example:

    ```python
    tlkit.fit(model, splits, schedule=tlkit.head_then_all())
    path = tlkit.publish(model, "saved_models/flowers_encoder")
    path  # PosixPath("saved_models/flowers_encoder/1")
    again = tlkit.image_classifier(path, ["rose", "tulip"])
    ```
    """
    encoder, directory = _encoder_in(model), user_path(directory)
    facts = facts_of(model)
    directory = directory if directory.name.strip(".") else directory.resolve()
    preprocessor_directory = pathlib.Path(f"{directory}_preprocess")
    write_preprocessor = _preprocessor_writer(model, verbose=verbose)
    if version is None and write_preprocessor is not None:
        directories = (directory, preprocessor_directory)
        version = max(next_version(folder) for folder in directories)
    preprocessor_paths: list[pathlib.Path] = []

    def write(folder: pathlib.Path) -> None:
        # In a strategy's scope, variables would be of the strategy's distributed kind.
        outside_strategy(lambda: _write_encoder(encoder, facts, folder))
        if facts.kind in ("image", "text"):
            write_card(folder, _card(model, encoder, directory, version))
        if write_preprocessor is not None:
            preprocessor_paths.append(
                write_version(preprocessor_directory, version, write_preprocessor)
            )

    try:
        path = write_version(directory, version, write)
    except BaseException:
        for folder in preprocessor_paths:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    if verbose:
        _print_paths(encoder, [path, *preprocessor_paths])
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


def _write_encoder(encoder: Encoder, facts: EncoderFacts, folder: pathlib.Path) -> None:
    reusable = make_reusable(encoder)
    with tempfile.TemporaryDirectory(prefix="tlkit-vocabulary-") as temporary:
        _add_vocabulary(reusable.module, facts, pathlib.Path(temporary))
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=True)
        tf.saved_model.save(reusable.module, str(folder), options=options)
    write_block_map(folder, encoder.blocks, reusable.names)


def _add_vocabulary(
    module: tf.Module, facts: EncoderFacts, temporary: pathlib.Path
) -> None:
    """Sets `vocab_file` and `do_lower_case` of a module, as Model Garden does."""
    if not facts.vocabulary:
        return
    path = temporary / "vocab.txt"
    path.write_text("\n".join(facts.vocabulary) + "\n", encoding="utf-8")
    module.vocab_file = tf.saved_model.Asset(str(path))
    module.do_lower_case = tf.Variable(
        facts.lower_case, trainable=False, name="do_lower_case"
    )


def _card(
    model: keras.Model | Encoder,
    encoder: Encoder,
    directory: pathlib.Path,
    version: int | None,
) -> Card:
    facts = facts_of(model)
    kind, preprocessor = facts.kind, None
    if facts.preprocessor and not facts.vocabulary:
        preprocessor = f"../../{directory.name}_preprocess/{version}"
    return Card(
        name=directory.name,
        kind=kind,
        image_size=_image_size(model, encoder) if kind == "image" else None,
        pixels=(facts.pixels or "unit") if kind == "image" else "none",
        preprocessor=preprocessor,
        licence=facts.licence or "",
        tried=True,
        note=f"fine-tuned with tlkit from {facts.name or encoder.name}",
    )


def _image_size(model: keras.Model | Encoder, encoder: Encoder) -> int | None:
    """Returns the model's input height if it equals the width, else the encoder's."""
    shape = getattr(model, "input_shape", None) if model is not encoder else None
    height, width = tuple(shape)[1:3] if isinstance(shape, tuple) else (None, None)
    if height is not None and height == width:
        return height
    return encoder.facts.image_size


def _print_paths(encoder: Encoder, paths: list[pathlib.Path]) -> None:
    name = encoder.facts.name or encoder.name
    folders = " and its preprocessor in ".join(str(path) for path in paths)
    count = len(encoder.blocks)
    blocks = "one block" if count == 1 else f"{count} blocks"
    print_line(f"Published {name} ({blocks}) in {folders}")


def _preprocessor_writer(
    model: keras.Model | Encoder, *, verbose: int
) -> Callable[[pathlib.Path], None] | None:
    """Returns a function that writes an encoder's preprocessor into a folder.

    It is `None` if no preprocessor is known, or if the encoder takes images or strings.

    Raises:
        SourceError: The preprocessor could not be fetched.
    """
    words, source = _word_piece_preprocessor(model), facts_of(model).preprocessor
    if words is not None:
        return lambda folder: _write_preprocessor(words, folder)
    if source:
        path = resolve(source, verbose=verbose).path
        return lambda folder: _copy(path, folder)
    return None


def _word_piece_preprocessor(
    model: keras.Model | Encoder,
) -> WordPiecePreprocessor | None:
    """Returns the preprocessor of an encoder with BERT's vocabulary and inputs."""
    facts = facts_of(model)
    if not {*_SPECIAL_TOKENS, "[PAD]"} <= set(facts.vocabulary):
        return None
    packing = dataclasses.replace(
        packing_of(model), pairs=False, windows=1, overlap=0, fixed_length=True
    )
    words = WordPiecePreprocessor(facts.vocabulary, facts.lower_case, packing)
    inputs = find_encoder(model).inputs_spec
    is_bert = isinstance(inputs, dict) and set(inputs) == set(words.names)
    return words if is_bert else None


def _copy(source: pathlib.Path, folder: pathlib.Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _write_preprocessor(words: WordPiecePreprocessor, folder: pathlib.Path) -> None:
    module = _Preprocessor(words)
    for texts in (1, 2):
        ragged = tf.RaggedTensorSpec([None, None], tf.int32)
        length = tf.TensorSpec([], tf.int32)
        module.bert_pack_inputs.get_concrete_function([ragged] * texts, length)
    tf.saved_model.save(module, str(folder))


class _Preprocessor(tf.Module):
    """Converts texts `[n]` to int32 `[n, length]` of each of the encoder's inputs.

    As TF Hub's preprocessors do, it also offers the two steps separately, for pairs of
    texts and for other lengths: `bert_pack_inputs([tokenize(texts), …], seq_length)`.
    """

    def __init__(self, words: WordPiecePreprocessor):
        super().__init__(name="preprocessor")
        text = import_extra("tensorflow_text", "text", "a text encoder's preprocessor")
        packing, texts = words.packing, tf.TensorSpec([None], tf.string)
        special = [words.vocabulary.index(token) for token in _SPECIAL_TOKENS]
        tokenizer = text.FastBertTokenizer(
            vocab=list(words.vocabulary),
            token_out_type=tf.int32,
            lower_case_nfd_strip_accents=words.lower_case,
        )

        def pack(inputs, seq_length=packing.length):
            count = seq_length - 1 - len(inputs)
            if len(inputs) == 1:
                segments = [truncate(*inputs, count, packing.truncation)]
            else:  # tokens are removed from the end of the longer text
                segments = text.RoundRobinTrimmer(count).trim(list(inputs))
            ids, types = text.combine_segments(segments, *special)
            rows = (ids, tf.ones_like(ids), types)
            return words.pad(dict(zip(words.names, rows, strict=True)), seq_length)

        # AutoGraph cannot convert cached functions, and there is nothing to convert.
        self.__call__ = tf.function(words, input_signature=[texts], autograph=False)
        self.tokenize = tf.function(
            tokenizer.tokenize, input_signature=[texts], autograph=False
        )
        self.bert_pack_inputs = tf.function(pack, autograph=False)
