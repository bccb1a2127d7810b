"""Pictures in folders."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import tensorflow as tf

from ...errors import DataError
from ...progress import progress
from ..examples.batch_assembly import Examples, assemble, read_split_sizes
from ..examples.splits import Skipped, Splits, warn_skipped
from ..images.decoder import check
from .class_folders import ClassFiles, find_class_files

# The second row is for no version of TensorFlow. They are listed all the same, so that
# a folder full of them is reported and not passed over.
_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".jxl"),
    *(".tif", ".tiff", ".heic", ".avif"),
)
_CHUNK = 1024  # files that wait for a thread at a time, however many there are


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
    """Reads a folder of pictures, with one folder for each class.

    The folder has one of two forms. `directory/<class>/…/*.jpg` is divided into splits
    here: stratified, and by the seed. `directory/<split>/<class>/…/*.jpg`, with
    `train`, and `validation` (or `val`, `valid`, `dev`) and `test` where there are any,
    is taken as it is, except that a missing validation split is taken from `train`.
    Without a folder `test` there is then no test split.

    Pictures are JPEG, PNG, GIF or WebP (their first frames) or BMP. The contents
    decide, not the ends of the names. Every picture is decoded once, up front, as it
    will be for training, so that a broken one does not stop it hours later; a JPEG at
    an eighth of its size, which finds what is broken as well. Pictures are read again
    when they are needed: no more than a few are in memory. One of more than 2²⁸ pixels
    counts as broken unless it is a JPEG, which is decoded no larger than it has to be.

    Args:
        directory: The folder.
        validation: The size of the validation split: a share as a float in [0, 1), or a
            number of pictures as an int, or 0 for none.
        test: The size of the test split, likewise.
        seed: Not negative. Decides the splits and the order of the training pictures.
        on_error: What to do with a picture that cannot be decoded: `"skip"` leaves it
            out with a warning that names it, `"raise"` stops.
        verify: Whether to decode every picture up front. Without, a broken one is an
            error of TensorFlow in the middle of the training, which does not name it.
        verbose: 1 shows the progress of the check, 0 is silent.

    Returns:
        Splits of the kind `"image"`. The raw value of an example is the bytes of its
        file. The labels are the sorted names of the folders.

    Raises:
        DataError: The folder has neither form, a class has no pictures, a label is not
            in the training split, or a picture is broken and `on_error="raise"`.

    Example:

    ```python
    splits = tlkit.data.image_folder("flowers")
    model = tlkit.image_classifier("resnet_v2_50", splits.labels)
    tlkit.fit(model, splits)
    ```
    """
    if on_error not in ("skip", "raise"):
        raise DataError(f'on_error must be "skip" or "raise"; got {on_error!r}.')
    sizes = read_split_sizes(validation, test, seed)
    found, divided = find_class_files(directory, _SUFFIXES)
    broken: dict[str, str] = {}
    if verify:
        paths = [path for split in found.values() for path, _ in split.files]
        broken = _check_pictures(paths, on_error == "raise", verbose)
    skipped = tuple(Skipped(path, reason) for path, reason in broken.items())
    warn_skipped(skipped, "pictures")
    return assemble(
        {name: _examples(split, broken) for name, split in found.items()},
        replace(sizes, test=0) if divided else sizes,
        kind="image",
        what="pictures",
        skipped=skipped,
    )


def _examples(split: ClassFiles, broken: dict[str, str]) -> Examples:
    files = [(path, label) for path, label in split.files if path not in broken]
    return Examples(
        raws=[path for path, _ in files],
        names=[split.labels[label] for _, label in files],
        labels=split.labels,
        where=split.directory,
    )


def _check_pictures(paths: list[str], stop: bool, verbose: int) -> dict[str, str]:
    """Decodes every picture; what is wrong with each broken one, by its path."""
    broken = {}
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        reasons = _in_chunks(pool, paths)
        for path, reason in progress(
            zip(paths, reasons, strict=True),
            total=len(paths),
            what="checking pictures",
            verbose=verbose,
        ):
            if reason is None:
                continue
            if stop:
                raise DataError(
                    f"The picture {path} cannot be used: {reason} Mend or remove it, "
                    'or leave such pictures out. Type: on_error="skip"'
                )
            broken[path] = reason
    return broken


def _in_chunks(pool: ThreadPoolExecutor, paths: list[str]) -> Iterator[str | None]:
    # Executor.map submits everything at once, which is a future for each of a million
    # files, and all of them are decoded before an error stops anything.
    for start in range(0, len(paths), _CHUNK):
        yield from pool.map(_reason_broken, paths[start : start + _CHUNK])


def _reason_broken(path: str) -> str | None:
    """Decodes one picture; says what is wrong with it, if anything is."""
    try:
        _checker()(path)
    except tf.errors.OpError:
        return _reason_in_words(path)
    return None


@functools.cache
def _checker() -> Callable[[str], tf.Tensor]:
    # As a graph: dozens of small ops for each picture would hold Python's lock.
    signature = [tf.TensorSpec([], tf.string)]
    return tf.function(lambda path: check(tf.io.read_file(path)), signature)


def _reason_in_words(path: str) -> str | None:
    # Once more, since an error of a graph tells where in the code the graph was made.
    try:
        check(tf.io.read_file(path))
    except tf.errors.OpError as error:
        return _plain_reason(error.message)
    return None


def _plain_reason(message: str) -> str:
    """Strips what TensorFlow says about its own inside."""
    message = re.sub(r"^\{\{.*?\}\}|\[Op:.*$", "", message, flags=re.DOTALL)
    message = " ".join(message.split())
    # Of our own checks, whose parts stand in brackets.
    message = re.sub(r"^assertion failed: \[(.*)\]$", r"\1", message)
    message = message.replace("] [", " ")
    return message if message.endswith(".") else f"{message}."
