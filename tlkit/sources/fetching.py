"""Copies a source with a lock into a folder or a bundle, for use without a network."""

import contextlib
import dataclasses
import gzip
import os
import pathlib
import shutil
import stat
import tarfile

from ..errors import SourceError, TlkitError
from ..files import damages, move_into_place, staging, user_path
from .catalog.cards import Card, write_card
from .download.http import is_archive
from .resolve import Resolved, resolve
from .store.lock import LOCK_FILE, UNREADABLE, Lock, check_lock, make_lock, write_lock
from .store.saved_model_check import check_saved_model, parse_saved_model
from .store.source_cache import read_cached_lock

# The folder of the preprocessor, in the encoder's folder.
_PREPROCESSOR = "preprocessor"


def fetch(
    source: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    bundle: bool = False,
    verbose: int = 1,
) -> pathlib.Path:
    """Copies a source into a folder, with a lock.

    The folder is a SavedModel, and can be used as a source. Its `tlkit.lock` has the
    source, the resolved address, the licence and the SHA-256 of every file; the files
    are compared with it whenever the folder is loaded. If a text encoder needs a
    preprocessor, that is copied into the folder `preprocessor`.

    Args:
        source: As `tlkit.load_encoder` takes it. Presets cannot be fetched.
        directory: The folder, which must not exist or be empty; or the file of a
            bundle, to which `.tar` is added unless it ends so.
        bundle: Whether to write one file instead, a `.tar` (or `.tar.gz`, `.tgz`) of
            the folder. It is a source, too: `tlkit.load_encoder("bert.tar")`.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        Path of the folder or of the file.

    Raises:
        SourceError: The source was not found, could not be fetched or is not a
            SavedModel, or `directory` exists.
        ExtraError: The source needs a package that is not installed.

    Example:
        >>> tlkit.sources.fetch("bert_en_uncased", "models/bert")
        PosixPath('models/bert')
    """
    target = user_path(directory)
    if target.absolute() == pathlib.Path.cwd():
        raise SourceError(f"{directory} is the current folder. Give another one.")
    if bundle and not is_archive(target.name):
        target = target.with_name(f"{target.name}.tar")
    _check_free(target)
    try:
        with staging(target) as temporary:
            made = temporary / "model"
            lock = _make(source, made, verbose=verbose)
            if bundle:
                write_bundle(made, lock, temporary / target.name)
                made = temporary / target.name
            _move(made, target)
    except OSError as error:
        if isinstance(error, TlkitError):
            raise
        raise SourceError(
            f"{target} cannot be written: {error.strerror or error}. Give a path in a "
            "folder that exists or can be created, on a disk with free space."
        ) from error
    return target


def read_lock(path: pathlib.Path) -> Lock:
    """Returns the lock of a folder or a bundle that `tlkit fetch` wrote.

    Args:
        path: The folder, or the `.tar`, `.tar.gz` or `.tgz`.

    Raises:
        SourceError: There is no lock, or it is damaged.
    """
    try:
        if path.is_dir():
            text = (path / LOCK_FILE).read_bytes()
        else:
            with tarfile.open(path, "r|*") as tar:
                first = tar.next()
                text = tar.extractfile(first).read() if first.name == LOCK_FILE else b""
        return Lock.from_json(text.decode("utf-8"))
    except (*UNREADABLE, tarfile.TarError) as error:
        raise SourceError(f"There is no {LOCK_FILE} in {path} ({error}).") from error


def write_bundle(folder: pathlib.Path, lock: Lock, path: pathlib.Path) -> None:
    """Writes a folder and its lock into a `.tar`, gzipped if its name says so.

    The lock comes first, then the files, sorted. Owners and times are left out, so that
    the same files give the same bytes.
    """
    is_packed = path.name.lower().endswith((".gz", ".tgz"))
    with path.open("xb") as raw:
        stream = gzip.GzipFile("", "wb", 6, raw, mtime=0) if is_packed else raw
        with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in (LOCK_FILE, *sorted(lock.files)):
                with (folder / name).open("rb") as file:
                    member = tarfile.TarInfo(name)
                    member.size = (folder / name).stat().st_size
                    tar.addfile(member, file)
        if is_packed:
            stream.close()


def _check_free(target: pathlib.Path) -> None:
    if target.is_dir() and not any(target.iterdir()) and not is_archive(target.name):
        return
    if target.exists():
        raise SourceError(
            f"{target} exists, and nothing is overwritten. Give a folder that is new "
            "or empty, or remove it."
        )


def _move(made: pathlib.Path, target: pathlib.Path) -> None:
    with contextlib.suppress(OSError):
        target.rmdir()  # an empty folder, which Windows would not replace
    try:
        if target.exists():  # a file, which a rename would overwrite
            raise FileExistsError(f"{target} exists")
        move_into_place(made, target)
    except OSError as error:
        raise SourceError(
            f"{target} could not be written: {error}. Another process created it "
            "meanwhile, or you may not write there; give another path."
        ) from error


def _make(source: str | os.PathLike[str], made: pathlib.Path, *, verbose: int) -> Lock:
    """Copies a source and its preprocessor into a new folder, and writes its lock."""
    resolved = resolve(source, verbose=verbose)
    if resolved.path is None:
        raise SourceError(
            f"{source} leads to the preset {resolved.preset}, which keras-nlp fetches "
            "and which is no SavedModel. Save it with preset.save_to_preset(folder), "
            "and give that folder as the source."
        )
    _copy(resolved.path, made)
    lock = check_lock(made)
    if lock is None:
        if resolved.card is not None:
            _add_card(resolved.card, resolved.path, made, verbose=verbose)
        lock = _lock(os.fspath(source), resolved, made)
        write_lock(made, lock)
    check_saved_model(made, full=True)
    return lock


def _copy(source: pathlib.Path, made: pathlib.Path) -> None:
    """Copies a folder, with files in place of links, and verifies the copy."""
    if made.resolve().is_relative_to(source.resolve()):
        raise SourceError(f"{source} cannot be copied into itself. Give another path.")
    try:
        shutil.copytree(source, made)
        # Make the copy writable for its owner, even if the source is read-only.
        for path in (made, *made.rglob("*")):
            path.chmod(path.stat().st_mode | stat.S_IRUSR | stat.S_IWUSR)
    except OSError as error:  # such as shutil.Error
        raise SourceError(f"{source} could not be copied: {error}") from error
    lock = read_cached_lock(source)
    differences = damages(made, lock.files) if lock else []
    if differences:
        raise SourceError(f"The copy of {source} is damaged: {differences[0]}.")


def _add_card(
    card: Card, source: pathlib.Path, made: pathlib.Path, *, verbose: int
) -> None:
    """Writes the card, and copies its preprocessor if the model needs one."""
    if card.preprocessor and not _has_vocabulary(made):
        preprocessor = pathlib.Path(card.preprocessor)
        if preprocessor.is_relative_to(source.absolute()):  # already in the copy
            inside = preprocessor.relative_to(source.absolute()).as_posix()
        else:
            _make(card.preprocessor, made / _PREPROCESSOR, verbose=verbose)
            inside = _PREPROCESSOR
        card = dataclasses.replace(card, preprocessor=f"./{inside}")
    write_card(made, card)


def _has_vocabulary(model: pathlib.Path) -> bool:
    """Returns whether a model contains its vocabulary, and needs no preprocessor."""
    graph = parse_saved_model(model).meta_graphs[0].object_graph_def
    root = graph.nodes[0].children if graph.nodes else ()
    return any(child.local_name == "vocab_file" for child in root)


def _lock(source: str, resolved: Resolved, made: pathlib.Path) -> Lock:
    cached = read_cached_lock(resolved.path)
    return make_lock(
        made,
        handle=source,
        address=resolved.tried[-1] if resolved.tried else str(resolved.path),
        licence=resolved.card.licence if resolved.card else "",
        archive=cached.archive if cached else None,
        time=cached.time if cached else None,
    )
