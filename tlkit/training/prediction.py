"""`predict`: returns labels and scores of raw examples.

Tested in tests/training/test_fitting.py.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from .. import data, models
from ..errors import DataError
from ..progress import progress
from .model_outputs import inference_function


@dataclasses.dataclass(frozen=True)
class Prediction:
    """A model's prediction for one example.

    Attributes:
        label: The label with the highest score.
        score: Its probability, in [0, 1].
        scores: The probabilities of the labels, highest first.
    """

    label: str
    score: float
    scores: Mapping[str, float]


def predict(
    model: keras.Model,
    raws: Sequence[str | bytes | os.PathLike | np.ndarray] | np.ndarray,
    *,
    batch_size: int = 32,
    top: int | None = None,
    verbose: int = 0,
) -> list[Prediction]:
    """Predicts the labels of raw examples.

    Args:
        model: A model of `tlkit`.
        raws: Texts; or pairs `(first, second)` of texts, if the model takes pairs; or
            images as file paths, as encoded bytes (JPEG, PNG, GIF, BMP, WebP), or as
            arrays `[height, width]` or `[height, width, 1 or 3]` in 0…255.
        batch_size: Examples in a batch.
        top: The number of labels in `scores`; all if `None`.
        verbose: 0 for silence, 1 for a progress bar.

    Returns:
        A prediction for each example, in their order.

    Raises:
        DataError: The model does not take such an example, or a file is missing.

    Example:

    ```python
    (prediction,) = tlkit.predict(model, ["Oil prices rose on Monday."])
    prediction.label, prediction.score  # ('crude', 0.98)
    ```
    """
    task = models.task_of(model)
    if task is None:
        raise DataError(
            "tlkit.predict is for models that tlkit built, which contain their labels. "
            "Use model.predict for this one."
        )
    if top is not None and top < 1:
        raise DataError(f"top must be 1 or more, or None for all; got {top!r}.")
    if isinstance(raws, (str, bytes, os.PathLike)):
        raise DataError(
            f"predict takes several examples. For one, type: predict(model, [{raws!r}])"
        )
    examples = _examples(model, raws)
    if not examples:
        return []
    outputs = _outputs(model, examples, batch_size, verbose)
    return [_prediction(row, task.labels, top) for row in task.scores(outputs)]


def _outputs(
    model: keras.Model, examples: list[Any], batch_size: int, verbose: int
) -> np.ndarray:
    first = tf.convert_to_tensor(examples[0])
    sizes = {np.shape(example) for example in examples}
    shape = first.shape if len(sizes) == 1 else [None] * first.shape.rank
    dataset = tf.data.Dataset.from_generator(
        lambda: ((example,) for example in examples),
        output_signature=(tf.TensorSpec(shape, first.dtype),),
    )
    preprocess = models.preprocessing(model)
    batches = data.batches(dataset, preprocess, batch_size=batch_size)
    run = inference_function(model, batches.element_spec[0])
    total = -(-len(examples) // batch_size)
    bar = progress(batches, total=total, what="predicting", verbose=verbose)
    return np.concatenate([run(inputs).numpy() for (inputs,) in bar])


def _examples(model: keras.Model, raws) -> list[Any]:
    kind = models.facts_of(model).kind
    if kind == "text":
        convert = _pair if models.packing_of(model).pairs else _text
    elif kind == "image":
        convert = _image
    else:
        return list(raws)
    return [convert(raw, index) for index, raw in enumerate(raws)]


def _text(raw: Any, index: int) -> bytes:
    if isinstance(raw, str):
        return raw.encode()
    if isinstance(raw, bytes):
        return raw
    raise DataError(
        f"This model takes texts; example {index} is a {type(raw).__name__}."
    )


def _pair(raw: Any, index: int) -> list[bytes]:
    if isinstance(raw, (list, tuple, np.ndarray)) and len(raw) == 2:
        return [_text(text, index) for text in raw]
    raise DataError(
        f"This model takes pairs of texts; example {index} is {raw!r:.80}. Type: "
        "predict(model, [(first, second)])"
    )


def _image(raw: Any, index: int) -> bytes | np.ndarray:
    if isinstance(raw, bytes):
        return raw
    if isinstance(raw, (str, os.PathLike)):
        try:
            with tf.io.gfile.GFile(os.path.expanduser(raw), "rb") as file:
                return file.read()
        except (tf.errors.OpError, OSError) as error:
            raise DataError(f"The image {raw} cannot be read: {error}") from error
    array = np.asarray(raw)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise DataError(
            "An image is a path, bytes, or an array [height, width] or [height, "
            f"width, 1 or 3]; example {index} is {array.dtype} {list(array.shape)}."
        )
    return array


def _prediction(
    scores: np.ndarray, labels: Sequence[str], top: int | None
) -> Prediction:
    order = np.argsort(-scores, kind="stable")[:top]
    by_label = {labels[i]: float(scores[i]) for i in order}
    best = labels[order[0]]
    return Prediction(best, by_label[best], by_label)
