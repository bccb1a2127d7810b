"""Version folders in TF Serving's form, written atomically.

Tested in tests/serving/test_killed_exports.py.
"""

import contextlib
import pathlib
from collections.abc import Callable

import tensorflow as tf

from ..errors import ExportError, TlkitError
from ..files import move_into_place, staging


def next_version(directory: pathlib.Path) -> int:
    """Returns the highest version in a folder plus one, or 1 if there is none."""
    if not directory.is_dir():
        return 1
    versions = [int(path.name) for path in directory.iterdir() if path.name.isdigit()]
    return max(versions, default=0) + 1


def write_version(
    directory: pathlib.Path,
    version: int | None,
    write: Callable[[pathlib.Path], None],
) -> pathlib.Path:
    """Writes a temporary folder and renames it to `<directory>/<version>`.

    A server that polls the directory never sees an incomplete version. If `write`
    raises, nothing remains.

    Args:
        directory: The model's folder, created if missing.
        version: Number of the version; the next free one if `None`.
        write: Writes the version's files into the folder it gets.

    Returns:
        The version's folder.

    Raises:
        ExportError: The version exists, or the directory cannot be written.
    """
    is_new = not directory.exists()
    try:
        number = _version_number(directory, version)
        final = directory / str(number)
        # The temporary folder is on the same disk, so that the rename is atomic. Its
        # name is not a number, so TF Serving ignores it.
        with staging(final) as temporary:
            written = temporary / "version"
            written.mkdir()
            write(written)
            return _rename(written, directory, version, number)
    except OSError as error:
        if isinstance(error, TlkitError):
            raise
        raise ExportError(
            f"{directory} cannot be written: {error.strerror or error}. Give a folder "
            "that exists or can be created, on a disk with free space."
        ) from error
    except tf.errors.OpError as error:  # TensorFlow raises it if the disk is full
        raise ExportError(f"{directory} cannot be written: {error.message}") from error
    finally:
        if is_new:
            with contextlib.suppress(OSError):  # not empty, or never created
                directory.rmdir()


def _version_number(directory: pathlib.Path, version: int | None) -> int:
    number = next_version(directory) if version is None else version
    if number < 1:
        raise ExportError(f"version must be 1 or more. Received: {version!r}.")
    if (directory / str(number)).exists():
        raise ExportError(
            f"{directory / str(number)} exists. Leave out `version` to write the next "
            f"free one ({next_version(directory)}), or remove that folder first."
        )
    return number


def _rename(
    written: pathlib.Path, directory: pathlib.Path, version: int | None, number: int
) -> pathlib.Path:
    while True:
        final = directory / str(number)
        try:
            return move_into_place(written, final, sync=True)
        except OSError as error:
            # The rename fails if another export has taken the number meanwhile, since
            # a folder that is not empty is never replaced.
            if version is not None or not final.exists():
                raise ExportError(
                    f"{final} could not be written: {error.strerror}."
                ) from error
            number = next_version(directory)
