"""Examples to ask an export about: held out of training, or made for the purpose."""

from __future__ import annotations

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..data.examples import pick
from ..encoders import find_encoder
from ..errors import DataError

# Enough to meet long and short ones, few enough to take seconds.
MOST = 32

_TEXTS = (
    "The weather was fine, and the film was better than I had thought.",
    "Oil prices rose by 3.5 % on Monday!",
    "",
    "Übermäßig naïve façade – привет, мир; 你好，世界 🙂",
    "one two three four five six seven eight nine ten " * 60,
    "UPPER lower MiXeD 1234567890 @#$%&*() http://example.com/path?x=1",
    "a",
    "  spaces   between\tand\nlines  ",
)
_SIZES = ((64, 48), (240, 320), (31, 97), (500, 375))


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some examples.

    Attributes:
        raws: What the signature takes: encoded pictures or texts as bytes, pairs of
            texts as pairs of bytes, or arrays of numbers.
        labels: Their labels as indices; `None` if they aren't known.
        made: Whether they were made up, because none were given.
    """

    raws: tuple[Any, ...]
    labels: tuple[int, ...] | None = None
    made: bool = False

    def __len__(self) -> int:
        return len(self.raws)

    def spread(self, count: int) -> Rows:
        """At most so many of them, from all over."""
        places = spread(len(self), count)
        raws = tuple(self.raws[i] for i in places)
        labels = self.labels and tuple(self.labels[i] for i in places)
        return Rows(raws, labels, self.made)


def spread(size: int, count: int) -> list[int]:
    """Places of at most `count` of so many examples, evenly from the first to the last.

    A split of a folder has its classes one after the other: the first examples of it
    would all be of one.
    """
    return np.linspace(0, size - 1, min(size, count)).round().astype(int).tolist()


def kind_of(model: keras.Model) -> str:
    """What a model's raw examples are: `"image"`, `"pair"`, `"text"` or `"numbers"`."""
    details = find_encoder(model).details
    if details.get("pairs"):
        return "pair"
    kind = details.get("kind")
    if kind in ("image", "text"):
        return kind
    flat = tf.nest.flatten(model.input)
    words = len(flat) == 1 and keras.backend.standardize_dtype(flat[0].dtype)
    return "text" if words == "string" else "numbers"


def rows_of(
    model: keras.Model, examples: tf.data.Dataset | Sequence | None, count: int = MOST
) -> Rows:
    """Takes examples to ask an export about.

    Args:
        model: The model.
        examples: A split, whose elements are `(raw, label)`, not batched; or raw
            examples as `tlkit.predict` takes them; or `None` to have some made.
        count: How many to take at most, spread over all whose number is known.

    Returns:
        The examples, in the form that the signature takes.

    Raises:
        DataError: They are not what the model takes, or there are none.
    """
    kind = kind_of(model)
    if examples is None:
        return Rows(_made(kind, model), made=True)
    found, labels = _taken(examples, count)
    if not found:
        raise DataError(
            "examples is empty. Give some, such as splits.validation, or leave it out."
        )
    take = {"image": _picture, "text": _text, "pair": _pair, "numbers": np.asarray}
    raws = tuple(take[kind](raw) for raw in found)
    return Rows(raws, None if labels is None else tuple(labels))


def columns(model: keras.Model, raws: Sequence[Any]) -> dict[str, np.ndarray | list]:
    """The inputs of the raw signature for some examples, by name."""
    kind = kind_of(model)
    if kind == "pair":
        firsts, seconds = zip(*raws, strict=True)
        return {"text": list(firsts), "text_pair": list(seconds)}
    if kind == "numbers":
        return {"inputs": np.stack(raws)}
    return {"image_bytes" if kind == "image" else "text": list(raws)}


def save_rows(rows: Rows, path: str | os.PathLike) -> None:
    """Writes examples to a TFRecord file, one `tf.train.Example` each."""
    path = pathlib.Path(path)
    beside = path.with_name(f".{path.name}.writing")
    labels = rows.labels or (-1,) * len(rows)
    try:
        with tf.io.TFRecordWriter(str(beside)) as writer:
            for raw, label in zip(rows.raws, labels, strict=True):
                values = list(raw) if isinstance(raw, tuple) else [raw]
                features = {
                    "raw": tf.train.Feature(
                        bytes_list=tf.train.BytesList(value=values)
                    ),
                    "label": tf.train.Feature(
                        int64_list=tf.train.Int64List(value=[label])
                    ),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def load_rows(path: str | os.PathLike) -> Rows:
    """Reads what `save_rows` wrote.

    Raises:
        DataError: The file is missing or damaged.
    """
    raws, labels = [], []
    try:
        for record in tf.data.TFRecordDataset(os.fspath(path)).as_numpy_iterator():
            features = tf.train.Example.FromString(record).features.feature
            values = tuple(features["raw"].bytes_list.value)
            raws.append(values if len(values) > 1 else values[0])
            labels.append(features["label"].int64_list.value[0])
    except (tf.errors.OpError, ValueError, IndexError) as error:
        raise DataError(
            f"The examples in {path} cannot be read: {error} Remove the file, or give "
            "other examples."
        ) from error
    return Rows(tuple(raws), None if -1 in labels else tuple(labels))


def _taken(examples: Any, count: int) -> tuple[list[Any], list[int] | None]:
    if isinstance(examples, Rows):
        found = examples.spread(count)
        return list(found.raws), None if found.labels is None else list(found.labels)
    if not isinstance(examples, tf.data.Dataset):
        if isinstance(examples, (str, bytes, os.PathLike)) or not isinstance(
            examples, Iterable
        ):
            raise DataError(
                "examples must be a split (a tf.data.Dataset) or several raw examples. "
                f"Received: {examples!r:.80}"
            )
        if isinstance(examples, Sequence):
            return [examples[i] for i in spread(len(examples), count)], None
        return list(itertools.islice(examples, count)), None
    return _of_dataset(examples, count)


def _of_dataset(
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
        chosen = pick(dataset, np.array(spread(size, count)), verbose=0)
    else:  # few, or nobody knows how many
        chosen = dataset.take(count)
    elements = list(chosen.as_numpy_iterator())
    raws = [raw for raw, _ in elements]
    return raws, [int(label) for _, label in elements] if is_labelled else None


def _text(raw: Any) -> bytes:
    if isinstance(raw, (str, bytes)):
        return raw.encode() if isinstance(raw, str) else raw
    raise DataError(f"This model takes texts; an example is {raw!r:.80}.")


def _pair(raw: Any) -> tuple[bytes, bytes]:
    if isinstance(raw, (tuple, list, np.ndarray)) and len(raw) == 2:
        return (_text(raw[0]), _text(raw[1]))
    raise DataError(f"This model takes pairs of texts; an example is {raw!r:.80}.")


def _picture(raw: Any) -> bytes:
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, (str, os.PathLike)):
        try:
            return pathlib.Path(raw).read_bytes()
        except OSError as error:
            raise DataError(f"The picture {raw} cannot be read: {error}") from error
    array = np.asarray(raw)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise DataError(
            "A picture is bytes, a path, or an array [height, width] or [height, "
            f"width, 1 or 3]; an example is {array.dtype} {list(array.shape)}."
        )
    array = array[..., np.newaxis] if array.ndim == 2 else array
    return tf.io.encode_png(np.clip(np.rint(array), 0, 255).astype(np.uint8)).numpy()


def _made(kind: str, model: keras.Model) -> tuple[Any, ...]:
    if kind == "text":
        return tuple(text.encode() for text in _TEXTS)
    if kind == "pair":
        texts = [text.encode() for text in _TEXTS]
        return tuple(zip(texts, reversed(texts), strict=True))
    random = np.random.default_rng(0)
    if kind == "image":
        return tuple(_made_picture(random, i) for i in range(8))
    shape = [side or 8 for side in tf.nest.flatten(model.input)[0].shape[1:]]
    return tuple(random.normal(size=(8, *shape)).astype(np.float32))


def _made_picture(random: np.random.Generator, number: int) -> bytes:
    height, width = _SIZES[number % len(_SIZES)]
    # Coarse, as photographs are: noise would be all edges.
    coarse = random.integers(0, 256, (1, 8, 8, 3)).astype(np.float32)
    picture = tf.cast(tf.image.resize(coarse, (height, width))[0], tf.uint8)
    encode = tf.io.encode_jpeg if number < len(_SIZES) else tf.io.encode_png
    return encode(picture).numpy()
