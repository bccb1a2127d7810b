"""Version folders in TF Serving's form, which appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Callable

import tensorflow as tf

from ..errors import ExportError, TlkitError
from ..files import staging


def next_version(directory: pathlib.Path) -> int:
    """One more than the highest version in a folder; 1 where there is none."""
    if not directory.is_dir():
        return 1
    versions = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
    return max(versions, default=0) + 1


def write_version(
    directory: pathlib.Path,
    version: int | None,
    write: Callable[[pathlib.Path], None],
) -> pathlib.Path:
    """Has a folder written, which becomes `<directory>/<version>` at the end.

    A server that polls the directory never sees it half-written, and if `write`
    raises, nothing stays behind.

    Args:
        directory: The model's folder; made if it is not there.
        version: Number of the version; the next free one if `None`.
        write: Writes into the folder that it is given.

    Returns:
        The version's folder.

    Raises:
        ExportError: The version is there already, or the directory cannot be written.
    """
    is_new = not directory.exists()
    try:
        number = _number(directory, version)
        final = directory / str(number)
        # On the same disk, so that the rename is atomic, and with a name that is no
        # number, which TF Serving leaves alone. What killed exports left goes, too.
        with staging(final) as workshop:
            made = workshop / "version"
            made.mkdir()
            write(made)
            return _rename(made, directory, version, number)
    except OSError as error:
        if isinstance(error, TlkitError):
            raise
        raise ExportError(
            f"{directory} cannot be written: {error.strerror or error}. Give a folder "
            "that exists or can be made, on a disk with room."
        ) from error
    except tf.errors.OpError as error:  # TensorFlow's, of a full disk
        raise ExportError(f"{directory} cannot be written: {error.message}") from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # it is not empty, or was not made
                directory.rmdir()


def _number(directory: pathlib.Path, version: int | None) -> int:
    number = next_version(directory) if version is None else version
    if number < 1:
        raise ExportError(f"A version is a number from 1 up. Received: {version!r}.")
    if (directory / str(number)).exists():
        raise ExportError(
            f"{directory / str(number)} is there already. Leave `version` out for the "
            f"next free one ({next_version(directory)}), or remove that folder first."
        )
    return number


def _rename(
    made: pathlib.Path, directory: pathlib.Path, version: int | None, number: int
) -> pathlib.Path:
    while True:
        try:
            os.rename(made, directory / str(number))
            return directory / str(number)
        except OSError as error:
            # Another export took the number meanwhile; a folder with something in it
            # is never replaced by os.rename.
            if version is not None or not (directory / str(number)).exists():
                raise ExportError(
                    f"{directory / str(number)} could not be made: {error.strerror}."
                ) from error
            number = next_version(directory)
