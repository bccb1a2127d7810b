"""Fetches SavedModels into the cache, where they stand whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import posixpath
import sys
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import SourceError, TlkitError
from ...files import sha256_of, staging
from ..store.archives import CutArchive, place_inside, unpack
from ..store.lock import check_lock, make_lock
from ..store.saved_model_check import check_saved_model, is_saved_model
from ..store.source_cache import entry_of, keep, kept_model
from .download_errors import OFFLINE, explain, refuse_network
from .http import is_archive, transfer


def fetch_url(url: str, *, timeout: float = 60.0, verbose: int = 1) -> pathlib.Path:
    """Fetches a SavedModel from a server that answers as TF Hub does.

    The archive is in a file before anything is unpacked. A download that was killed
    starts again at once: nothing waits for it, and a day later it is cleared away.

    Args:
        url: `https://…` or `http://…`, whose answer to `?tf-hub-format=compressed` is
            a tar archive of a SavedModel, or which ends in `.tar`, `.tar.gz` or `.tgz`.
        timeout: Seconds without a byte after which to give up.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        The SavedModel's folder in the cache.

    Raises:
        SourceError: Says what was tried, what came and what to do.
    """

    def download(folder: pathlib.Path) -> dict[str, Any]:
        archive = folder.with_name("archive")
        facts = transfer(url, archive, timeout=timeout, verbose=verbose)
        unpack(archive, folder)
        return facts

    found = cached_url(url)
    if found is None:
        refuse_network(url)
        found = _fetch(url, url, download, timeout=timeout)
    return found


def cached_url(url: str) -> pathlib.Path | None:
    """Returns an address's SavedModel if it is on this machine, and whole."""
    return kept_model(url) or _in_hub_cache(url)


def fetch_bucket(url: str, *, verbose: int = 1) -> pathlib.Path:
    """Copies a SavedModel out of a bucket, such as `gs://bucket/folder`.

    Args:
        url: Address of a folder, or of its `.tar` or `.tar.gz`, in any file system
            that TensorFlow knows.
        verbose: 0 is silent, 1 says what is fetched.

    Returns:
        The SavedModel's folder in the cache.

    Raises:
        SourceError: Says what was tried, what came and what to do.
    """

    def download(folder: pathlib.Path) -> dict[str, Any]:
        if verbose:
            print(f"Fetching {url}", file=sys.stderr, flush=True)
        if not is_archive(url):
            _copy_tree(url.rstrip("/"), folder)
            return {}
        archive = folder.with_name("archive")
        _copy_file(url, archive)
        unpack(archive, folder)
        return {"size": archive.stat().st_size, "sha256": sha256_of(archive)}

    found = kept_model(url)
    if found is None:
        refuse_network(url)
        found = _fetch(url, url, download)
    return found


def fetch_archive(archive: pathlib.Path) -> pathlib.Path:
    """Unpacks an archive on this machine into the cache, under its SHA-256.

    Args:
        archive: A `.tar`, `.tar.gz` or `.tgz` of a SavedModel, such as a bundle that
            `tlkit fetch --bundle` wrote. A lock in it is compared.

    Returns:
        The SavedModel's folder in the cache.

    Raises:
        SourceError: It is damaged, unsafe or holds no whole SavedModel.
    """

    def open_it(folder: pathlib.Path) -> dict[str, Any]:
        unpack(archive, folder)
        return {"size": archive.stat().st_size, "sha256": sha256}

    sha256 = sha256_of(archive)
    handle = f"sha256:{sha256}"
    address = str(archive.absolute())
    return kept_model(handle) or _fetch(handle, address, open_it, timeout=None)


def _fetch(
    handle: str,
    address: str,
    download: Callable[[pathlib.Path], dict[str, Any]],
    *,
    timeout: float | None = 0.0,
) -> pathlib.Path:
    """Downloads beside the cache entry, checks, and moves the model there.

    Args:
        handle: What it is known by in the cache.
        address: What it is called in errors and in its lock.
        download: Fills an empty folder and returns what is known of the archive.
        timeout: Seconds, for the message; `None` if it is on this machine.
    """
    with _staging(entry_of(handle)) as workshop:
        folder = workshop / "unpacked"
        folder.mkdir()
        try:
            archive = download(folder)
        except CutArchive as error:
            raise SourceError(_not_whole(address, str(error))) from error
        # urllib, http.client, gzip, tarfile and TensorFlow raise all sorts of things.
        except Exception as error:
            raise SourceError(explain(address, error, timeout)) from error
        try:
            model = _model_in(folder)
            check_lock(model)
            check_saved_model(model, full=True)
        except SourceError as error:
            said = str(error).replace(str(model), "it")
            raise SourceError(_not_whole(address, said)) from error
        made = workshop / "entry"
        made.mkdir()
        os.replace(model, made / "model")
        facts = {"handle": handle, "address": address, "archive": archive}
        lock = make_lock(made / "model", **facts, outside=True)
        return keep(made, lock, handle)


@contextlib.contextmanager
def _staging(entry: pathlib.Path) -> Iterator[pathlib.Path]:
    try:
        with staging(entry) as workshop:
            yield workshop
    except OSError as error:
        if isinstance(error, TlkitError):
            raise
        raise SourceError(
            f"The cache folder {entry.parent} cannot be written: "
            f"{error.strerror or error}. Have TLKIT_CACHE name another folder."
        ) from error


def _model_in(folder: pathlib.Path) -> pathlib.Path:
    """The SavedModel of an archive, which may be all of it or in its only folder."""
    inside = list(folder.iterdir())
    alone = len(inside) == 1 and inside[0].is_dir() and is_saved_model(inside[0])
    return inside[0] if alone else folder


def _not_whole(address: str, why: str) -> str:
    return (
        f"What came from {address} is not a whole SavedModel, and was thrown away: "
        f"{why} {OFFLINE}"
    )


def _in_hub_cache(url: str) -> pathlib.Path | None:
    """Returns what tensorflow-hub itself keeps of a handle, if that is whole.

    It keeps no digests. Missing files and damaged variables are noticed, whose
    checksums TensorFlow writes; a flipped bit in the graph or in an asset is not.
    """
    folder = os.environ.get("TFHUB_CACHE_DIR")
    if not folder or "://" in folder:
        return None
    kept = pathlib.Path(folder) / hashlib.sha1(url.encode("utf-8")).hexdigest()
    try:
        check_saved_model(kept, full=True)
    except OSError:
        return None
    return kept


def _copy_tree(source: str, folder: pathlib.Path) -> None:
    import tensorflow as tf

    if not tf.io.gfile.isdir(source):
        raise FileNotFoundError("there is no such folder, or it can't be reached")
    for place, _, names in tf.io.gfile.walk(source):
        # Names in a bucket are any strings, "../.." among them.
        inside = place_inside(folder, place[len(source) :].strip("/"))
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            _copy_file(posixpath.join(place, name), place_inside(inside, name))


def _copy_file(source: str, path: pathlib.Path) -> None:
    import tensorflow as tf

    tf.io.gfile.copy(source, str(path))
