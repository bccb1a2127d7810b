"""The examples with which an export is checked, warmed up and measured.

Tested in tests/serving/test_exporting.py.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..data.examples import pick
from ..errors import DataError
from ..files import atomic_file, user_path
from ..models import facts_of, packing_of

# Enough to include long and short examples, few enough to take seconds.
MAX_EXAMPLES = 32

_SYNTHETIC_TEXTS = (
    "The weather was fine, and the film was better than I had thought.",
    "Oil prices rose by 3.5 % on Monday!",
    "",
    "Übermäßig naïve façade – привет, мир; 你好，世界 🙂",
    "one two three four five six seven eight nine ten " * 60,
    "UPPER lower MiXeD 1234567890 @#$%&*() http://example.com/path?x=1",
    "a",
    "  spaces   between\tand\nlines  ",
)
_SYNTHETIC_SIZES = ((64, 48), (240, 320), (31, 97), (500, 375))


@dataclasses.dataclass(frozen=True)
class ExportExamples:
    """Raw examples in the form that an export's signatures take.

    Attributes:
        raws: Encoded images or texts as bytes, pairs of texts as pairs of bytes, or
            arrays of numbers.
        labels: Their labels as indices; `None` if unknown.
        synthetic: Whether they were generated because none were given.
    """

    raws: tuple[Any, ...]
    labels: tuple[int, ...] | None = None
    synthetic: bool = False

    def __len__(self) -> int:
        return len(self.raws)

    def sample(self, count: int) -> ExportExamples:
        """Returns at most `count` of the examples, evenly spaced."""
        indices = evenly_spaced(len(self), count)
        raws = tuple(self.raws[i] for i in indices)
        labels = self.labels and tuple(self.labels[i] for i in indices)
        return ExportExamples(raws, labels, self.synthetic)


def evenly_spaced(size: int, count: int) -> list[int]:
    """Returns at most `count` indices below `size`, from the first to the last.

    A split of an image folder lists its classes one after the other, so its first
    examples would all have the same label.
    """
    return np.linspace(0, size - 1, min(size, count)).round().astype(int).tolist()


def example_kind(model: keras.Model) -> str:
    """Returns a model's kind of example: `"image"`, `"pair"`, `"text"`, `"numbers"`."""
    if packing_of(model).pairs:
        return "pair"
    kind = facts_of(model).kind
    if kind in ("image", "text"):
        return kind
    inputs = tf.nest.flatten(model.input)
    one_input = len(inputs) == 1 and keras.backend.standardize_dtype(inputs[0].dtype)
    return "text" if one_input == "string" else "numbers"


def take_examples(
    model: keras.Model,
    examples: tf.data.Dataset | Sequence | None,
    count: int = MAX_EXAMPLES,
) -> ExportExamples:
    """Takes examples in the form that an export's signatures take.

    Args:
        model: The model.
        examples: A split, whose elements are `(raw, label)`, not batched; raw examples
            as `tlkit.predict` takes them; or `None` to generate some.
        count: The maximum number of examples. They are evenly spaced over `examples` if
            its length is known, else its first ones.

    Returns:
        The examples.

    Raises:
        DataError: `examples` is empty or does not fit the model.
    """
    kind = example_kind(model)
    if examples is None:
        return ExportExamples(_synthetic(kind, model), synthetic=True)
    raws, labels = _raws_and_labels(examples, count)
    if not raws:
        raise DataError(
            "examples is empty. Give some, such as splits.validation, or leave it out."
        )
    convert = {
        "image": _image_bytes,
        "text": _text_bytes,
        "pair": _pair_bytes,
        "numbers": np.asarray,
    }[kind]
    raws = tuple(convert(raw) for raw in raws)
    return ExportExamples(raws, None if labels is None else tuple(labels))


def signature_inputs(
    model: keras.Model, raws: Sequence[Any]
) -> dict[str, np.ndarray | list]:
    """Returns examples as the named inputs of the signature `serving_default`."""
    kind = example_kind(model)
    if kind == "pair":
        firsts, seconds = zip(*raws, strict=True)
        return {"text": list(firsts), "text_pair": list(seconds)}
    if kind == "numbers":
        return {"inputs": np.stack(raws)}
    return {"image_bytes" if kind == "image" else "text": list(raws)}


def save_examples(examples: ExportExamples, path: str | os.PathLike) -> None:
    """Writes examples to a TFRecord file, one `tf.train.Example` each."""
    path = user_path(path)
    labels = examples.labels or (-1,) * len(examples)
    with atomic_file(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for raw, label in zip(examples.raws, labels, strict=True):
            writer.write(_record(raw, label))


def load_examples(path: str | os.PathLike) -> ExportExamples:
    """Reads a file that `save_examples` wrote.

    Raises:
        DataError: The file is missing or damaged.
    """
    raws, labels = [], []
    try:
        for record in tf.data.TFRecordDataset(str(user_path(path))).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            values = tuple(features["raw"].bytes_list.value)
            raws.append(values if len(values) > 1 else values[0])
            labels.append(features["label"].int64_list.value[0])
    except (tf.errors.OpError, ValueError, IndexError) as error:
        raise DataError(
            f"The examples in {path} cannot be read: {error} Remove the file, or give "
            "other examples."
        ) from error
    return ExportExamples(tuple(raws), None if -1 in labels else tuple(labels))


def _record(raw: bytes | tuple[bytes, ...], label: int) -> bytes:
    values = list(raw) if isinstance(raw, tuple) else [raw]
    features = {
        "raw": tf.train.Feature(bytes_list=tf.train.BytesList(value=values)),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


def _raws_and_labels(examples: Any, count: int) -> tuple[list[Any], list[int] | None]:
    if isinstance(examples, ExportExamples):
        sample = examples.sample(count)
        return list(sample.raws), None if sample.labels is None else list(sample.labels)
    if isinstance(examples, tf.data.Dataset):
        return _from_dataset(examples, count)
    if isinstance(examples, (str, bytes, os.PathLike)) or not isinstance(
        examples, Iterable
    ):
        raise DataError(
            "examples must be a split (a tf.data.Dataset) or several raw examples. "
            f"Received: {examples!r:.80}"
        )
    if isinstance(examples, Sequence):
        return [examples[i] for i in evenly_spaced(len(examples), count)], None
    return list(itertools.islice(examples, count)), None


def _from_dataset(
    dataset: tf.data.Dataset, count: int
) -> tuple[list[Any], list[int] | None]:
    spec = dataset.element_spec
    is_labelled = isinstance(spec, tuple)
    if is_labelled:
        label = spec[1] if len(spec) == 2 else None
        is_index = isinstance(label, tf.TensorSpec) and label.dtype.is_integer
        if not is_index or label.shape.rank != 0:
            raise DataError(
                "A split has elements (raw, label), not batched, with the label as an "
                f"index. Received elements of {spec}. Give splits.validation, or "
                "dataset.unbatch()."
            )
    else:
        dataset = dataset.map(lambda raw: (raw, 0))
    size = int(dataset.cardinality())
    if size > count:
        sample = pick(dataset, np.array(evenly_spaced(size, count)), verbose=0)
    else:  # a small data set, or one of unknown size
        sample = dataset.take(count)
    elements = list(sample.as_numpy_iterator())
    raws = [raw for raw, _ in elements]
    return raws, [int(label) for _, label in elements] if is_labelled else None


def _text_bytes(raw: Any) -> bytes:
    if isinstance(raw, (str, bytes)):
        return raw.encode() if isinstance(raw, str) else raw
    raise DataError(f"This model takes texts; an example is {raw!r:.80}.")


def _pair_bytes(raw: Any) -> tuple[bytes, bytes]:
    if isinstance(raw, (tuple, list, np.ndarray)) and len(raw) == 2:
        return (_text_bytes(raw[0]), _text_bytes(raw[1]))
    raise DataError(f"This model takes pairs of texts; an example is {raw!r:.80}.")


def _image_bytes(raw: Any) -> bytes:
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, (str, os.PathLike)):
        try:
            return user_path(raw).read_bytes()
        except OSError as error:
            raise DataError(f"The image {raw} cannot be read: {error}") from error
    array = np.asarray(raw)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise DataError(
            "An image is bytes, a path, or an array [height, width] or [height, "
            f"width, 1 or 3]; an example is {array.dtype} {list(array.shape)}."
        )
    array = array[..., np.newaxis] if array.ndim == 2 else array
    return tf.io.encode_png(np.clip(np.rint(array), 0, 255).astype(np.uint8)).numpy()


def _synthetic(kind: str, model: keras.Model) -> tuple[Any, ...]:
    texts = [text.encode() for text in _SYNTHETIC_TEXTS]
    if kind == "text":
        return tuple(texts)
    if kind == "pair":
        return tuple(zip(texts, reversed(texts), strict=True))
    random = np.random.default_rng(0)
    if kind == "image":
        return tuple(_synthetic_image(random, i) for i in range(8))
    shape = [side or 8 for side in tf.nest.flatten(model.input)[0].shape[1:]]
    return tuple(random.normal(size=(8, *shape)).astype(np.float32))


def _synthetic_image(random: np.random.Generator, number: int) -> bytes:
    height, width = _SYNTHETIC_SIZES[number % len(_SYNTHETIC_SIZES)]
    # Smooth, as photographs are: pixel noise would consist of edges only.
    coarse = random.integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
    image = tf.cast(tf.image.resize(coarse, (height, width))[0], tf.uint8)
    encode = tf.io.encode_jpeg if number < len(_SYNTHETIC_SIZES) else tf.io.encode_png
    return encode(image).numpy()
