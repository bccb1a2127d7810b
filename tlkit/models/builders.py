"""Builds Keras models: an encoder, what goes before it, and a head."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from ..encoders import Encoder, load_encoder, trust_source
from ..errors import EncoderError
from ..tasks import Classification, classification
from .heads import POOLING, Head, Pixels, TokenPooling
from .text.packer import Packing
from .text.text_inputs import TextInputs
from .text.windows import WindowMean, Windows

Source = str | os.PathLike | keras.Model | Encoder


def image_classifier(
    source: Source,
    labels: int | Sequence[str],
    *,
    image_size: int | tuple[int, int] | None = None,
    pixels: str | None = None,
    dropout: float = 0.0,
    trust: bool = False,
    name: str = "image_classifier",
) -> keras.Model:
    """Builds a Keras model that says what is in a picture.

    The model takes float32 `[batch, height, width, 3]` in 0…255 and gives logits
    `[batch, labels]`; scaling the pixels is part of it.

    Args:
        source: An encoder from `tlkit.load_encoder`, or what that takes.
        labels: Names of the classes in the order of the outputs, or how many.
        image_size: Height and width in pixels, or one number for both. Default: the
            encoder's own, else 224.
        pixels: What the encoder was trained with; see `tlkit.models.Pixels`. Default:
            what the catalog knows, else `"unit"` (0…1), TF Hub's convention.
        dropout: Share of the features that training leaves out, 0 to 1.
        trust: As `tlkit.load_encoder` takes it.
        name: Name of the model.

    Returns:
        The model. `tlkit.fit` trains it as it is; for Keras's own `fit`, compile it
        with `task = model.get_layer("head").task`, `task.loss()` and `task.metrics()`.

    Raises:
        SourceError: The encoder was not found or could not be fetched.
        EncoderError: It is not one for pictures, or does not take that size.

    Example:

    ```python
    source = tlkit.samples.encoder("resnet50")
    model = tlkit.image_classifier(source, ["cat", "dog"], image_size=96)
    model.output_shape  # (None, 2)
    ```
    """
    encoder = _encoder(source, "image", trust=trust)
    task = classification(labels)
    height, width = _image_size(encoder, image_size)

    # === Layers ===
    scale = Pixels(pixels or encoder.facts.pixels or "unit", name="pixels")
    pool = keras.layers.GlobalAveragePooling2D(name="pooling")
    head = Head(task, dropout, name="head")

    # === Functional Model ===
    inputs = keras.Input((height, width, 3), name="image")
    features = encoder(scale(inputs))
    if not isinstance(features, keras.KerasTensor):
        raise EncoderError(_several_outputs(features))
    if len(features.shape) == 4:
        features = pool(features)
    return keras.Model(inputs, head(features), name=name)


def text_classifier(
    source: Source,
    labels: int | Sequence[str],
    *,
    pooling: str = "mean",
    length: int = 128,
    truncation: str = "head",
    pairs: bool = False,
    windows: int = 1,
    overlap: int = 0,
    preprocessor: str | os.PathLike | None = None,
    dropout: float = 0.1,
    trust: bool = False,
    name: str = "text_classifier",
) -> keras.Model:
    """Builds a Keras model that says which class a text is of.

    The model takes the encoder's token ids (int32 `[batch, tokens]`, any number of
    tokens up to `length`) and gives logits `[batch, labels]`. `tlkit.fit`, `predict`
    and `export` take raw strings and make the ids.

    Args:
        source: An encoder from `tlkit.load_encoder`, or what that takes.
        labels: Names of the classes in the order of the outputs, or how many.
        pooling: `"mean"` over the tokens, `"pooled"` for the encoder's pooled output,
            or `"both"` side by side.
        length: The most tokens of a text; longer ones are cut.
        truncation: What is kept of a longer text: `"head"` for its first tokens,
            `"tail"` for its last, `"head+tail"` for a quarter of the first and three
            quarters of the last.
        pairs: Whether an example is a pair of texts, such as a premise and a
            hypothesis. Both are packed into one row of tokens, and cut together.
        windows: In how many windows of `length` tokens a longer text is read at most.
            The head gets the mean of their features, so a text keeps one label and one
            prediction; only what is longer than all windows is cut. Each window costs
            as much as a text.
        overlap: How many tokens a window shares with the one before.
        preprocessor: A SavedModel from strings to token ids. Default: the vocabulary
            that the encoder brings, else what the catalog knows.
        dropout: Share of the features that training leaves out, 0 to 1.
        trust: As `tlkit.load_encoder` takes it, for the preprocessor, too. It is not
            saved with the model.
        name: Name of the model.

    Returns:
        The model, not compiled; see `image_classifier`.

    Raises:
        SourceError: The encoder was not found or could not be fetched.
        EncoderError: It is not one for texts, or lacks the output that pooling needs.

    Example:

    ```python
    source = tlkit.samples.encoder("minilm")
    model = tlkit.text_classifier(source, ["good", "bad"])
    model.output_shape  # (None, 2)
    ```
    """
    if pooling not in POOLING:
        raise EncoderError(
            f"pooling must be one of {', '.join(POOLING)}. Received: {pooling!r}."
        )
    packing = Packing(length, truncation, pairs, windows, overlap)
    needed = {"pooled": "pooled_output", "mean": "sequence_output"}
    needed |= {"both": ("pooled_output", "sequence_output")}
    encoder = _encoder(source, "text", needed[pooling], trust=trust)
    task = classification(labels)
    tokens = preprocessor or encoder.facts.preprocessor
    if trust and tokens:
        trust_source(os.fspath(tokens))

    # === Layers ===
    options = TextInputs(packing, preprocessor, name="text_inputs")
    pool = TokenPooling(pooling, name="pooling")
    head = Head(task, dropout, name="head")

    # === Functional Model ===
    inputs = _text_inputs(encoder)
    if pairs and not isinstance(inputs, dict):
        raise EncoderError(
            "Pairs of texts need an encoder that takes token ids. This one takes "
            f"{inputs}. Leave pairs out."
        )
    texts = options(inputs)
    read = _windows(texts, packing) if packing.windows > 1 else texts
    outputs = encoder(read)
    if isinstance(inputs, dict):
        outputs = _needed(outputs, needed[pooling])
        outputs = pool(outputs, read["input_mask"])
        if packing.windows > 1:
            mean = WindowMean(name="window_mean")
            outputs = mean(outputs, read["input_mask"], texts["input_mask"])
    elif not isinstance(outputs, keras.KerasTensor):
        raise EncoderError(_several_outputs(outputs))
    return keras.Model(inputs, head(outputs), name=name)


def build_model(encoder: Source, task: Classification, **options: Any) -> keras.Model:
    """Builds a Keras model for any task.

    Args:
        encoder: An encoder from `tlkit.load_encoder`, or what that takes.
        task: What is predicted, one of `tlkit.tasks`.
        **options: Those of `image_classifier` or `text_classifier`, by the encoder's
            kind.

    Returns:
        The model.

    Raises:
        SourceError: The encoder was not found or could not be fetched.
        EncoderError: It does not fit the task or the options.
        TypeError: An option is not one of that kind's.

    Example:

    ```python
    encoder = tlkit.load_encoder(tlkit.samples.encoder("resnet50"))
    model = tlkit.build_model(encoder, tlkit.tasks.Classification(["cat", "dog"]))
    model.output_shape  # (None, 2)
    ```
    """
    if not isinstance(encoder, Encoder):
        encoder = load_encoder(encoder, trust=options.get("trust", False))
    builder = text_classifier if encoder.facts.kind == "text" else image_classifier
    return builder(encoder, task, **options)


def _encoder(source: Source, kind: str, output=None, *, trust: bool) -> Encoder:
    if isinstance(source, Encoder):
        encoder = source
    else:
        encoder = _loaded(source, output, trust)
    known = encoder.facts.kind or kind
    if known != kind:
        raise EncoderError(
            f"The encoder {encoder.facts.name!r} is one for {known}s. Use "
            f"tlkit.{known}_classifier(source, labels)."
        )
    return encoder


def _loaded(source: Source, output, trust: bool) -> Encoder:
    """Loads only the outputs that are needed, where the encoder has outputs to choose.

    What the others alone need (a pooler, say) is then neither run nor trained.
    """
    try:
        return load_encoder(source, output=output, trust=trust)
    except EncoderError:
        if output is None:
            raise
    return load_encoder(source, trust=trust)


def _image_size(encoder: Encoder, wanted) -> tuple[int, int]:
    specs = tf.nest.flatten(encoder.inputs_spec)
    fixed = tuple(specs[0].shape[1:3]) if specs[0].shape.rank == 4 else (None, None)
    if wanted is None:
        own = encoder.facts.image_size or 224
        return tuple(size or own for size in fixed)
    height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
    for size, want in zip(fixed, (height, width), strict=True):
        if size not in (None, want):
            raise EncoderError(
                f"The encoder takes pictures of {fixed[0]} by {fixed[1]} pixels only. "
                f"Received: image_size={wanted!r}. Leave image_size out."
            )
    return height, width


def _text_inputs(encoder: Encoder):
    spec = encoder.inputs_spec
    if isinstance(spec, dict):
        return {
            key: keras.Input(s.shape[1:], dtype=s.dtype.name, name=key)
            for key, s in spec.items()
        }
    return keras.Input(spec.shape[1:], dtype=spec.dtype.name, name="text")


def _windows(inputs, packing: Packing):
    """The inputs with one row for each window of a text."""
    if not isinstance(inputs, dict) or {x.shape[1] for x in inputs.values()} != {None}:
        raise EncoderError(
            "Windows need an encoder that takes any number of token ids. This one "
            f"takes {inputs}. Leave windows out."
        )
    fold = Windows(packing.length, name="windows")
    return {name: fold(tokens) for name, tokens in inputs.items()}


def _needed(outputs, names):
    """The outputs that pooling needs, of an encoder that may give more."""
    if isinstance(names, str):
        if isinstance(outputs, keras.KerasTensor):
            return outputs
        names_ = (names,)
    else:
        names_ = names
    missing = [name for name in names_ if name not in outputs]
    if missing:
        raise EncoderError(
            f"This pooling needs the encoder's output {missing[0]!r}. It gives: "
            f"{', '.join(sorted(outputs))}. Try another pooling=…"
        )
    return outputs[names] if isinstance(names, str) else {n: outputs[n] for n in names}


def _several_outputs(outputs) -> str:
    there = ", ".join(sorted(outputs)) if isinstance(outputs, dict) else len(outputs)
    return (
        f"The encoder gives several outputs: {there}. Choose one: "
        "tlkit.load_encoder(source, output=…)."
    )
