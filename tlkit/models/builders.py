"""Builds Keras models: input layers, an encoder, pooling and a head."""

import numbers
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
    """Builds a Keras model that classifies images.

    The model takes float32 `[batch, height, width, 3]` in 0…255, scales it to the range
    of the encoder, and returns logits `[batch, labels]`.

    Args:
        source: An encoder, or a source of `tlkit.load_encoder`.
        labels: Names of the classes in the order of the outputs, or their number.
        image_size: Height and width in pixels, or one number for both. Default: the
            encoder's, else 224.
        pixels: The range of the encoder's input, see `tlkit.models.Pixels`. Default:
            the range in `encoder.facts`, else `"unit"` (0…1), TF Hub's convention.
        dropout: Dropout rate of the features, 0 to 1.
        trust: See `tlkit.load_encoder`.
        name: Name of the model.

    Returns:
        The model. `tlkit.fit` trains it without compiling; for Keras's own `fit`,
        compile it with `task = model.get_layer("head").task`, `task.loss()` and
        `task.metrics()`.

    Raises:
        SourceError: The encoder was not found or could not be fetched.
        EncoderError: The encoder is not for images, or does not accept the image size.

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

    # Layers
    scale = Pixels(pixels or encoder.facts.pixels or "unit", name="pixels")
    pool = keras.layers.GlobalAveragePooling2D(name="pooling")
    head = Head(task, dropout, name="head")

    # Functional model
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
    """Builds a Keras model that classifies texts.

    Its inputs are the encoder's token ids (int32 `[batch, tokens]`, up to `length`
    tokens), its output is logits `[batch, labels]`. `tlkit.fit`, `predict` and `export`
    tokenize raw strings for it.

    Args:
        source: An encoder, or a source of `tlkit.load_encoder`.
        labels: Names of the classes in the order of the outputs, or their number.
        pooling: `"mean"` over the tokens, `"pooled"` for the encoder's pooled output,
            or `"both"` concatenated.
        length: The maximum number of tokens of a text; longer texts are truncated.
        truncation: The tokens of a longer text that are used: `"head"` for the first,
            `"tail"` for the last, `"head+tail"` for a quarter from the beginning and
            three quarters from the end.
        pairs: Whether an example is a pair of texts, such as a premise and a
            hypothesis. Both are packed into one row of tokens and truncated together.
        windows: The maximum number of windows of `length` tokens for a longer text. The
            head gets the mean of their features, so there is one prediction for a text.
            Only texts longer than all windows are truncated. Each window takes as much
            time as a text.
        overlap: The number of tokens that a window shares with the window before it.
        preprocessor: A SavedModel that turns strings into token ids. Default: the
            encoder's vocabulary, else the preprocessor in `encoder.facts`.
        dropout: Dropout rate of the features, 0 to 1.
        trust: See `tlkit.load_encoder`. It applies to the preprocessor, too, and is not
            saved with the model.
        name: Name of the model.

    Returns:
        The model, not compiled; see `image_classifier`.

    Raises:
        SourceError: The encoder was not found or could not be fetched.
        EncoderError: The encoder is not for texts, or lacks the output that pooling
            needs.

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

    # Layers
    options = TextInputs(packing, preprocessor, name="text_inputs")
    pool = TokenPooling(pooling, name="pooling")
    head = Head(task, dropout, name="head")

    # Functional model
    inputs = _text_inputs(encoder)
    if pairs and not isinstance(inputs, dict):
        raise EncoderError(
            "Pairs of texts need an encoder with token ids as inputs. The inputs of "
            f"this one: {inputs}. Leave pairs out."
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
        encoder: An encoder, or a source of `tlkit.load_encoder`.
        task: The task, one of `tlkit.tasks`.
        **options: Arguments of `image_classifier` or `text_classifier`, depending on
            the kind of the encoder.

    Returns:
        The model.

    Raises:
        SourceError: The encoder was not found or could not be fetched.
        EncoderError: The encoder does not fit the task or the options.
        TypeError: That kind of model has no such option.

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
            f"The encoder {encoder.facts.name!r} is for {known}s. Use "
            f"tlkit.{known}_classifier(source, labels)."
        )
    return encoder


def _loaded(source: Source, output, trust: bool) -> Encoder:
    """Loads an encoder with only the given output, if it has several.

    Blocks that only its other outputs need, such as a pooler, are not run or trained.
    """
    try:
        return load_encoder(source, output=output, trust=trust)
    except EncoderError:
        if output is None:
            raise
    return load_encoder(source, trust=trust)


def _image_size(
    encoder: Encoder, image_size: int | tuple[int, int] | None
) -> tuple[int, int]:
    specs = tf.nest.flatten(encoder.inputs_spec)
    fixed = tuple(specs[0].shape[1:3]) if specs[0].shape.rank == 4 else (None, None)
    if image_size is None:
        default = encoder.facts.image_size or 224
        return tuple(size or default for size in fixed)
    sizes = image_size if isinstance(image_size, (tuple, list)) else (image_size,) * 2
    # NumPy's integers are `Integral`, too.
    whole = all(isinstance(s, numbers.Integral) and s > 0 for s in sizes)
    if len(sizes) != 2 or not whole:
        raise EncoderError(
            "image_size must be a number of pixels, or a height and a width; got "
            f"{image_size!r}."
        )
    if any(only not in (None, size) for only, size in zip(fixed, sizes, strict=True)):
        raise EncoderError(
            f"The encoder accepts images of {fixed[0]} by {fixed[1]} pixels only. "
            f"Received: image_size={image_size!r}. Leave image_size out."
        )
    return int(sizes[0]), int(sizes[1])


def _text_inputs(encoder: Encoder):
    spec = encoder.inputs_spec
    if isinstance(spec, dict):
        return {
            key: keras.Input(s.shape[1:], dtype=s.dtype.name, name=key)
            for key, s in spec.items()
        }
    return keras.Input(spec.shape[1:], dtype=spec.dtype.name, name="text")


def _windows(inputs, packing: Packing):
    """Folds the inputs, so that each window of a text is a row of its own."""
    if not isinstance(inputs, dict) or {x.shape[1] for x in inputs.values()} != {None}:
        raise EncoderError(
            "Windows need an encoder that takes any number of token ids. The inputs of "
            f"this one: {inputs}. Leave windows out."
        )
    fold = Windows(packing.length, name="windows")
    return {name: fold(tokens) for name, tokens in inputs.items()}


def _needed(outputs, names: str | tuple[str, ...]):
    """Selects the outputs that pooling needs."""
    one = isinstance(names, str)
    if one and isinstance(outputs, keras.KerasTensor):
        return outputs
    missing = [n for n in ([names] if one else names) if n not in outputs]
    if missing:
        raise EncoderError(
            f"This pooling needs the encoder's output {missing[0]!r}. Its outputs: "
            f"{', '.join(sorted(outputs))}. Try another pooling=…"
        )
    return outputs[names] if one else {name: outputs[name] for name in names}


def _several_outputs(outputs) -> str:
    names = ", ".join(sorted(outputs)) if isinstance(outputs, dict) else len(outputs)
    return (
        f"The encoder has several outputs: {names}. Choose one: "
        "tlkit.load_encoder(source, output=…)."
    )
