"""Fetches SavedModels into the cache, from servers, buckets and local archives."""

import contextlib
import hashlib
import os
import pathlib
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from ...errors import SourceError, TlkitError
from ...files import sha256_of, staging, user_path
from ...progress import print_line
from ..store.archives import IncompleteArchive, path_inside, unpack
from ..store.lock import check_lock, make_lock
from ..store.saved_model_check import check_saved_model, is_saved_model
from ..store.source_cache import add_entry, cached_model, entry_path
from .download_errors import OFFLINE_HINT, download_error_message, require_network
from .http import is_archive, transfer

_CHUNK = 1 << 24  # bytes


def fetch_url(url: str, *, timeout: float = 60.0, verbose: int = 1) -> pathlib.Path:
    """Fetches a SavedModel from a server that responds as TF Hub does.

    The archive is saved to a file before it is unpacked. No lock file is used, so after
    a killed download the next one starts at once.

    Args:
        url: `https://…` or `http://…`. The response to `?tf-hub-format=compressed` must
            be a tar archive of a SavedModel, or the URL end in `.tar`, `.tar.gz` or
            `.tgz`.
        timeout: Seconds without a byte after which the download fails.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        The SavedModel's folder in the cache.

    Raises:
        SourceError: The download failed, or is not a complete SavedModel.
    """

    def download(folder: pathlib.Path) -> dict[str, Any]:
        archive = folder.with_name("archive")
        facts = transfer(url, archive, timeout=timeout, verbose=verbose)
        unpack(archive, folder)
        return facts

    return cached_url(url) or _fetch(url, url, download, timeout=timeout)


def cached_url(url: str) -> pathlib.Path | None:
    """Returns the SavedModel of an address if it is cached and complete."""
    return cached_model(url) or _in_hub_cache(url)


def fetch_bucket(url: str, *, verbose: int = 1) -> pathlib.Path:
    """Copies a SavedModel from a bucket, such as `gs://bucket/folder`.

    Args:
        url: Address of a folder, or of its `.tar` or `.tar.gz`, in any file system
            that TensorFlow knows.
        verbose: 0 is silent, 1 prints the address.

    Returns:
        The SavedModel's folder in the cache.

    Raises:
        SourceError: The download failed, or is not a complete SavedModel.
    """

    def download(folder: pathlib.Path) -> dict[str, Any]:
        if verbose:
            print_line(f"Fetching {url}")
        if not is_archive(url):
            _copy_tree(url.rstrip("/"), folder)
            return {}
        archive = folder.with_name("archive")
        _copy_file(url, archive)
        unpack(archive, folder)
        return {"size": archive.stat().st_size, "sha256": sha256_of(archive)}

    return cached_model(url) or _fetch(url, url, download)


def fetch_archive(archive: pathlib.Path) -> pathlib.Path:
    """Unpacks a local archive into the cache, with its SHA-256 as the handle.

    Args:
        archive: A `.tar`, `.tar.gz` or `.tgz` of a SavedModel, such as a bundle that
            `tlkit fetch --bundle` wrote. If it has a lock, its files are verified.

    Returns:
        The SavedModel's folder in the cache.

    Raises:
        SourceError: The archive is damaged, unsafe, or not a complete SavedModel.
    """
    sha256 = sha256_of(archive)

    def open_archive(folder: pathlib.Path) -> dict[str, Any]:
        unpack(archive, folder)
        return {"size": archive.stat().st_size, "sha256": sha256}

    handle = f"sha256:{sha256}"
    address = str(archive.absolute())
    return cached_model(handle) or _fetch(handle, address, open_archive, timeout=None)


def _fetch(
    handle: str,
    address: str,
    download: Callable[[pathlib.Path], dict[str, Any]],
    *,
    timeout: float | None = 0.0,
) -> pathlib.Path:
    """Downloads to a temporary folder, checks the model and adds it to the cache.

    Args:
        handle: Identifies the model in the cache.
        address: Names the model in errors and in its lock.
        download: Fills an empty folder; returns size and digest of the archive.
        timeout: Seconds, for the error message; `None` for a local file.
    """
    if timeout is not None:
        require_network(address)
    with _staging(entry_path(handle)) as temporary:
        folder = temporary / "unpacked"
        folder.mkdir()
        try:
            archive = download(folder)
        except IncompleteArchive as error:
            raise SourceError(_incomplete_message(address, str(error))) from error
        # urllib, http.client, gzip, tarfile and TensorFlow raise errors of many types.
        except Exception as error:
            message = download_error_message(address, error, timeout)
            raise SourceError(message) from error
        try:
            model = _model_in(folder)
            check_lock(model)
            check_saved_model(model, full=True)
        except SourceError as error:
            reason = str(error).replace(str(model), "it")
            raise SourceError(_incomplete_message(address, reason)) from error
        entry = temporary / "entry"
        entry.mkdir()
        os.rename(model, entry / "model")
        facts = {"handle": handle, "address": address, "archive": archive}
        lock = make_lock(entry / "model", **facts, outside=True)
        return add_entry(entry, lock, handle)


@contextlib.contextmanager
def _staging(entry: pathlib.Path) -> Iterator[pathlib.Path]:
    try:
        with staging(entry) as temporary:
            yield temporary
    except OSError as error:
        if isinstance(error, TlkitError):
            raise
        raise SourceError(
            f"The cache folder {entry.parent} cannot be written: "
            f"{error.strerror or error}. Set TLKIT_CACHE to another folder."
        ) from error


def _model_in(folder: pathlib.Path) -> pathlib.Path:
    """Returns the SavedModel of an unpacked archive: `folder` or its only folder."""
    paths = list(folder.iterdir())
    is_inside = len(paths) == 1 and paths[0].is_dir() and is_saved_model(paths[0])
    return paths[0] if is_inside else folder


def _incomplete_message(address: str, reason: str) -> str:
    return (
        f"The download from {address} is not a complete SavedModel and was deleted: "
        f"{reason} {OFFLINE_HINT}"
    )


def _in_hub_cache(url: str) -> pathlib.Path | None:
    """Returns a complete model in tensorflow-hub's own cache.

    That cache has no digests. Missing files and damaged variables are detected, since
    TensorFlow writes checksums of those; a flipped bit in the graph or in an asset is
    not.
    """
    cache = os.environ.get("TFHUB_CACHE_DIR")
    if not cache or "://" in cache:
        return None
    model = user_path(cache) / hashlib.sha1(url.encode("utf-8")).hexdigest()
    try:
        check_saved_model(model, full=True)
    except OSError:
        return None
    return model


def _copy_tree(source: str, folder: pathlib.Path) -> None:
    import tensorflow as tf

    if not tf.io.gfile.isdir(source):
        raise FileNotFoundError("there is no such folder, or it can't be reached")
    for parent, _, names in tf.io.gfile.walk(source):
        # Names in a bucket are arbitrary strings, "../.." among them.
        target = path_inside(folder, parent[len(source) :].strip("/"))
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            _copy_file(posixpath.join(parent, name), path_inside(target, name))


def _copy_file(source: str, path: pathlib.Path) -> None:
    import tensorflow as tf

    # In chunks, since Ctrl-C and SIGTERM take effect between two calls of TensorFlow.
    with tf.io.gfile.GFile(source, "rb") as reader, path.open("xb") as writer:
        while chunk := reader.read(_CHUNK):
            writer.write(chunk)
