"""Brings a source to a folder, or into one file for a machine without a network.

A folder in one file, the same bytes each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import os
import pathlib
import shutil
import stat
import tarfile

from ..errors import SourceError, TlkitError
from ..files import damages, staging
from .catalog.cards import Card, write_card
from .download.http import is_archive
from .resolve import Resolved, resolve
from .store.lock import LOCK_FILE, Lock, check_lock, make_lock, write_lock
from .store.saved_model_check import check_saved_model, parse_saved_model
from .store.source_cache import read_entry

# Where the preprocessor stands, beside the encoder's own files.
_PREPROCESSOR = "preprocessor"


def fetch(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    bundle: bool = False,
    verbose: int = 1,
) -> pathlib.Path:
    """Brings a source to a folder, with a lock that says what it is.

    The folder is a plain SavedModel, and a source of its own. `tlkit.lock` in it has
    the source, the address that it led to, the licence and the SHA-256 of every file;
    it is compared each time the folder is used. A text encoder that needs a
    preprocessor gets it in the folder `preprocessor`.

    Args:
        source: As `tlkit.load_encoder` takes it. Presets cannot be fetched.
        directory: The folder, which must not be there yet or be empty; or the file of
            a bundle, to which `.tar` is added unless it ends so.
        bundle: Whether to write one file instead, a `.tar` (or `.tar.gz`, `.tgz`) with
            the same folder in it. It is a source, too:
            `tlkit.load_encoder("bert.tar")`.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        Path of the folder or of the file.

    Raises:
        SourceError: The source was not found, could not be fetched or has no files of
            its own, or something is at that place already.
        ExtraError: The source needs a package that is not installed.

    Example:
        >>> tlkit.sources.fetch("bert_en_uncased", "models/bert")
        PosixPath('models/bert')
    """
    target = pathlib.Path(directory).expanduser()
    if target.absolute() == pathlib.Path.cwd():
        raise SourceError(f"{directory} is the folder we are in. Give another place.")
    if bundle and not is_archive(target.name):
        target = target.with_name(f"{target.name}.tar")
    _refuse_taken(target)
    try:
        with staging(target) as workshop:
            made = workshop / "model"
            lock = _make(source, made, verbose=verbose)
            if bundle:
                write_bundle(made, lock, workshop / target.name)
                made = workshop / target.name
            _move(made, target)
    except OSError as error:
        if isinstance(error, TlkitError):
            raise
        raise SourceError(
            f"{target} cannot be written: {error.strerror or error}. Give a place in a "
            "folder that exists or can be made, on a disk with room."
        ) from error
    return target


def _refuse_taken(target: pathlib.Path) -> None:
    if target.is_dir() and not any(target.iterdir()) and not is_archive(target.name):
        return
    if target.exists():
        raise SourceError(
            f"{target} is there already, and nothing is overwritten. Give a folder "
            "that is new or empty, or remove it."
        )


def _move(made: pathlib.Path, target: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        target.rmdir()  # an empty one; Windows renames over none
    try:
        if target.exists():  # a file, which a rename would overwrite
            raise FileExistsError(f"{target} is there already")
        os.replace(made, target)
    except OSError as error:
        raise SourceError(
            f"{target} could not be written: {error}. It was made by something else "
            "meanwhile, or may not be written to; give another place."
        ) from error


def _make(source: str | os.PathLike[str], made: pathlib.Path, *, verbose: int) -> Lock:
    """Copies a source and what it needs into a new folder, and locks it."""
    found = resolve(source, verbose=verbose)
    if found.path is None:
        raise SourceError(
            f"{source} leads to the preset {found.preset}, which keras-nlp fetches and "
            "which is no SavedModel. Save it with preset.save_to_preset(folder), and "
            "give that folder as the source."
        )
    _copy(found.path, made)
    lock = check_lock(made)
    if lock is None:
        if found.card is not None:
            _add_card(found.card, found.path, made, verbose=verbose)
        lock = _lock(os.fspath(source), found, made)
        write_lock(made, lock)
    check_saved_model(made, full=True)
    return lock


def _copy(source: pathlib.Path, made: pathlib.Path) -> None:
    """Copies a folder, and what its links lead to."""
    if made.resolve().is_relative_to(source.resolve()):
        raise SourceError(f"{source} cannot be copied into itself. Give another place.")
    try:
        shutil.copytree(source, made)
        # The copy is its owner's, however locked the source is.
        for path in (made, *made.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:  # shutil.Error is one
        raise SourceError(f"{source} could not be copied: {error}") from error
    kept = read_entry(source)
    wrong = damages(made, kept.files) if kept else []
    if wrong:
        raise SourceError(f"The copy of {source} is not what it was: {wrong[0]}.")


def _add_card(
    card: Card, source: pathlib.Path, made: pathlib.Path, *, verbose: int
) -> None:
    """Puts the card in, and the preprocessor that it names, if one is needed."""
    if card.preprocessor and not _brings_vocabulary(made):
        given = pathlib.Path(card.preprocessor)
        if given.is_relative_to(source.absolute()):  # copied along with the rest
            inside = given.relative_to(source.absolute()).as_posix()
        else:
            _make(card.preprocessor, made / _PREPROCESSOR, verbose=verbose)
            inside = _PREPROCESSOR
        card = dataclasses.replace(card, preprocessor=f"./{inside}")
    write_card(made, card)


def _brings_vocabulary(model: pathlib.Path) -> bool:
    """Tells whether a model has its word pieces with it: then those are used."""
    graph = parse_saved_model(model).meta_graphs[0].object_graph_def
    root = graph.nodes[0].children if graph.nodes else ()
    return any(child.local_name == "vocab_file" for child in root)


def _lock(source: str, found: Resolved, made: pathlib.Path) -> Lock:
    kept = read_entry(found.path)
    return make_lock(
        made,
        handle=source,
        address=found.tried[-1] if found.tried else str(found.path),
        licence=found.card.licence if found.card else "",
        archive=kept.archive if kept else None,
        time=kept.time if kept else None,
    )


# === Bundles ===


_PACKED = (".gz", ".tgz")
_NO_LOCK = (OSError, ValueError, LookupError, TypeError, AttributeError)


def write_bundle(folder: pathlib.Path, lock: Lock, path: pathlib.Path) -> None:
    """Writes a folder and its lock into a `.tar`, packed if its name says so.

    The lock comes first, then the files by their names. Owners and times are left
    out, so that the same files give the same archive.
    """
    packed = path.name.lower().endswith(_PACKED)
    with path.open("xb") as raw:
        stream = gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in (LOCK_FILE, *sorted(lock.files)):
                with (folder / name).open("rb") as file:
                    member = tarfile.TarInfo(name)
                    member.size = (folder / name).stat().st_size
                    tar.addfile(member, file)
        if packed:
            stream.close()


def read_lock(path: pathlib.Path) -> Lock:
    """Returns the lock of a folder or a bundle that `tlkit fetch` wrote.

    Raises:
        SourceError: There is none.
    """
    try:
        if path.is_dir():
            text = (path / LOCK_FILE).read_bytes()
        else:
            with tarfile.open(path, "r|*") as tar:
                first = tar.next()
                text = tar.extractfile(first).read() if first.name == LOCK_FILE else b""
        return Lock.from_json(text.decode("utf-8"))
    except (*_NO_LOCK, tarfile.TarError) as error:
        raise SourceError(f"There is no {LOCK_FILE} in {path} ({error}).") from error
