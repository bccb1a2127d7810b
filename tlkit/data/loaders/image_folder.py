"""Loads images from a folder of class folders."""

import functools
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import tensorflow as tf

from ...errors import DataError
from ...progress import progress
from ..examples.split_assembly import LoadedExamples, SplitSizes, assemble
from ..examples.splits import Skipped, Splits, warn_skipped
from ..images.decoder import check
from .class_folders import ClassFiles, find_class_files

# TensorFlow decodes none of the formats in the second row. Their suffixes are listed,
# so that such images are reported and not ignored.
_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".jxl"),
    *(".tif", ".tiff", ".heic", ".avif"),
)
_CHUNK = 1024  # files that are submitted to the threads at a time


def image_folder(
    directory: str | os.PathLike[str],
    *,
    validation: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
    on_error: str = "skip",
    verify: bool = True,
    verbose: int = 1,
) -> Splits:
    """Loads a folder of images, with one folder for each class.

    The folder has one of two forms. `directory/<class>/…/*.jpg` is divided into splits
    here: stratified, and controlled by the seed. `directory/<split>/<class>/…/*.jpg`
    has the folder `train`, and may have `validation` (or `val`, `valid`, `dev`) and
    `test`. In this second form a missing validation split is taken from `train`, but a
    missing test split is not.

    Images are JPEG, PNG, BMP, or the first frame of a GIF or WebP; their contents
    decide, not their suffixes. Every image is decoded once when the folder is loaded (a
    JPEG at an eighth of its size), so that a broken one does not stop the training
    hours later. Training reads an image when it needs it: only a few are in memory.
    Images of more than 2²⁸ pixels count as broken, except JPEGs, which are decoded at
    the smallest size that is needed.

    Args:
        directory: The folder.
        validation: The size of the validation split: a fraction as a float in [0, 1),
            or a number of images as an int; 0 for none.
        test: The size of the test split, as for `validation`.
        seed: Not negative. Decides the splits and the order of the training images.
        on_error: `"skip"` leaves out images that cannot be decoded with a warning that
            names them, `"raise"` raises an error.
        verify: Whether to decode every image once when the folder is loaded. If not, a
            broken image raises a TensorFlow error during training, which does not name
            the file.
        verbose: 1 shows the progress of the verification, 0 is silent.

    Returns:
        Splits of the kind `"image"`. The raw value of an example is the bytes of its
        file. The labels are the sorted names of the folders.

    Raises:
        DataError: The folder has neither form, a class has no images, a label does not
            occur in training, or an image is broken and `on_error="raise"`.

    Example:

    ```python
    splits = tlkit.data.image_folder("flowers")
    splits  # Splits(image: train 2,936, validation 367, test 367; 5 labels: 'daisy', …
    model = tlkit.image_classifier("resnet_v2_50", splits.labels)
    tlkit.fit(model, splits)
    ```
    """
    if on_error not in ("skip", "raise"):
        raise DataError(f'on_error must be "skip" or "raise"; got {on_error!r}.')
    sizes = SplitSizes(validation, test, seed)
    files, divided = find_class_files(directory, _SUFFIXES)
    broken: dict[str, str] = {}
    if verify:
        paths = [path for split in files.values() for path, _ in split.files]
        broken = _find_broken(paths, on_error == "raise", verbose)
    skipped = tuple(Skipped(path, reason) for path, reason in broken.items())
    warn_skipped(skipped, "images")
    return assemble(
        {name: _examples(split, broken) for name, split in files.items()},
        replace(sizes, test=0) if divided else sizes,
        kind="image",
        what="images",
        skipped=skipped,
    )


def _examples(split: ClassFiles, broken: dict[str, str]) -> LoadedExamples:
    files = [(path, label) for path, label in split.files if path not in broken]
    return LoadedExamples(
        raws=[path for path, _ in files],
        names=[split.labels[label] for _, label in files],
        labels=split.labels,
        where=split.directory,
    )


def _find_broken(paths: list[str], stop: bool, verbose: int) -> dict[str, str]:
    """Decodes every image; returns the reason for each broken one, by its path."""
    broken = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        reasons = _in_chunks(pool, paths)
        for path, reason in progress(
            zip(paths, reasons, strict=True),
            total=len(paths),
            what="checking images",
            verbose=verbose,
        ):
            if reason is None:
                continue
            if stop:
                raise DataError(
                    f"The image {path} cannot be used: {reason} Repair or remove it, "
                    'or leave such images out. Type: on_error="skip"'
                )
            broken[path] = reason
    return broken


def _in_chunks(pool: ThreadPoolExecutor, paths: list[str]) -> Iterator[str | None]:
    # Executor.map would submit all files at once: a million files would take a million
    # futures, and all would be decoded before an error is raised.
    for start in range(0, len(paths), _CHUNK):
        yield from pool.map(_reason_broken, paths[start : start + _CHUNK])


def _reason_broken(path: str) -> str | None:
    """Decodes one image; returns the reason if it is broken, else `None`."""
    try:
        _checker()(path)
    except tf.errors.OpError:
        return _reason_in_words(path)
    return None


@functools.cache
def _checker() -> Callable[[str], tf.Tensor]:
    # A graph, since eager ops hold the GIL: dozens of small ones would block threads.
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda path: check(tf.io.read_file(path)), signature)


def _reason_in_words(path: str) -> str | None:
    # Decodes again without a graph, since a graph's errors contain a stack trace.
    try:
        check(tf.io.read_file(path))
    except tf.errors.OpError as error:
        return _plain_reason(error.message)
    return None


def _plain_reason(message: str) -> str:
    """Removes TensorFlow's internal details from a message."""
    message = re.sub(r"^\{\{.*?\}\}|\[Op:.*$", "", message, flags=re.DOTALL)
    message = " ".join(message.split())
    # An assertion of tlkit puts the parts of its message in brackets.
    message = re.sub(r"^assertion failed: \[(.*)\]$", r"\1", message)
    message = message.replace("] [", " ")
    return message if message.endswith(".") else f"{message}."
