"""Fetches SavedModels into the cache, where they stand whole or not at all."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import posixpath
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

from ..errors import SourceError, import_extra
from .cache import cache_folder, put, remove, staging
from .check import check_saved_model
from .hub import import_tensorflow_hub
from .response import Response

# How to go on without a network; ends the errors below.
OFFLINE = (
    "Without a network, fetch it elsewhere, unpack it, and give its folder instead."
)

# The environment belongs to the whole process.
_ONE_AT_A_TIME = threading.RLock()


def fetch_url(url: str, *, timeout: float = 60.0, verbose: int = 1) -> pathlib.Path:
    """Fetches a SavedModel from a server that answers as TF Hub does.

    Args:
        url: `https://…` or `http://…`, whose answer to `?tf-hub-format=compressed` is
            a tar archive of a SavedModel.
        timeout: Seconds without a byte after which to give up.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        The SavedModel's folder in the cache.

    Raises:
        SourceError: Says what was tried, what came and what to do.
    """
    found = _cached(url) or _in_hub_cache(url)
    return found or _fetch(
        url,
        lambda folder: _download(url, folder, timeout=timeout, verbose=verbose),
        timeout=timeout,
    )


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

    def download(folder: pathlib.Path) -> pathlib.Path:
        if verbose:
            print(f"Fetching {url}", file=sys.stderr, flush=True)
        if url.endswith((".tar", ".tar.gz", ".tgz")):
            hub = import_tensorflow_hub()
            with _hub_cache_in(folder):
                return pathlib.Path(hub.resolve(url))
        _copy_tree(url.rstrip("/"), folder)
        return folder

    return _cached(url) or _fetch(url, download)


def fetch_kaggle(handle: str) -> pathlib.Path:
    """Fetches a model with kagglehub, into kagglehub's own cache.

    kagglehub compares checksums itself. Without a version in the handle it asks
    Kaggle for the latest each time.

    Args:
        handle: `owner/model/framework/variation`, with or without `/version`.

    Returns:
        The model's folder.

    Raises:
        SourceError: Kaggle does not have it or cannot be reached.
        ExtraError: kagglehub is not installed.
    """
    kagglehub = import_extra("kagglehub", "kaggle", "A kaggle:// source")
    try:
        folder = pathlib.Path(kagglehub.model_download(handle))
    # kagglehub lets requests' errors, its own and plain ones through.
    except Exception as error:
        raise SourceError(
            f"Kaggle did not give {handle!r}: {error}\nA handle is kaggle://owner/"
            "model/framework/variation[/version], as the model's page shows it. "
            f"{OFFLINE}"
        ) from error
    check_saved_model(folder, full=False)
    return folder


def _download(
    url: str, folder: pathlib.Path, *, timeout: float, verbose: int
) -> pathlib.Path:
    """Lets tensorflow-hub fetch and unpack, over a connection of ours.

    Its own has no timeout, and neither it nor tarfile notices a cut connection when
    the cut falls between two files.
    """
    import_tensorflow_hub()
    from tensorflow_hub import compressed_module_resolver

    opened = []

    class Resolver(compressed_module_resolver.HttpCompressedFileResolver):
        def _call_urlopen(self, request: urllib.request.Request) -> Response:
            response = urllib.request.urlopen(
                request, timeout=timeout, context=self._context
            )
            opened.append(Response(response, url, verbose=verbose))
            return opened[-1]

    try:
        with _hub_cache_in(folder):
            model = Resolver()(url)
        for response in opened:
            response.drain()
    finally:
        for response in opened:
            response.close()
    return pathlib.Path(model)


def _fetch(
    handle: str,
    download: Callable[[pathlib.Path], pathlib.Path],
    *,
    timeout: float = 0.0,
) -> pathlib.Path:
    """Downloads beside the cache entry, checks, and moves the model there."""
    entry = _entry(handle)
    with staging(entry) as workshop:
        (workshop / "download").mkdir()
        try:
            model = download(workshop / "download")
        # tensorflow-hub and TensorFlow raise all sorts of things.
        except Exception as error:
            raise SourceError(_explain(handle, error, timeout)) from error
        try:
            check_saved_model(model, full=True)
        except SourceError as error:
            raise SourceError(
                f"What came from {handle} is not a whole SavedModel, and was thrown "
                f"away: {str(error).replace(str(model), 'it')} {OFFLINE}"
            ) from error
        made = workshop / "entry"
        made.mkdir()
        os.replace(model, made / "model")
        (made / "handle.json").write_text(_describe(handle, made / "model"), "utf-8")
        put(made, entry)
    return entry / "model"


def _entry(handle: str) -> pathlib.Path:
    key = hashlib.sha256(handle.encode("utf-8")).hexdigest()
    return cache_folder() / "models" / key


def _describe(handle: str, model: pathlib.Path) -> str:
    files = {
        path.relative_to(model).as_posix(): path.stat().st_size
        for path in sorted(model.rglob("*"))
        if path.is_file()
    }
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps({"handle": handle, "time": now, "files": files}, indent=1)


def _cached(handle: str) -> pathlib.Path | None:
    """Returns the model if it is in the cache, all files with the size they had."""
    entry = _entry(handle)
    if not entry.is_dir():
        return None
    try:
        files = json.loads((entry / "handle.json").read_text("utf-8"))["files"]
        whole = all(
            (entry / "model" / name).stat().st_size == size
            for name, size in files.items()
        )
    except (OSError, ValueError, LookupError):
        whole = False
    if not whole:
        remove(entry)
        return None
    return entry / "model"


def _in_hub_cache(url: str) -> pathlib.Path | None:
    """Returns what tensorflow-hub itself keeps of a handle, if that is whole."""
    folder = os.environ.get("TFHUB_CACHE_DIR")
    if not folder or "://" in folder:
        return None
    kept = pathlib.Path(folder) / hashlib.sha1(url.encode("utf-8")).hexdigest()
    try:
        check_saved_model(kept, full=True)
    except OSError:
        return None
    return kept


@contextlib.contextmanager
def _hub_cache_in(folder: pathlib.Path) -> Iterator[None]:
    """Lets tensorflow-hub unpack into a folder, instead of into its own cache."""
    with _ONE_AT_A_TIME:
        before = os.environ.get("TFHUB_CACHE_DIR")
        os.environ["TFHUB_CACHE_DIR"] = str(folder)
        try:
            yield
        finally:
            if before is None:
                del os.environ["TFHUB_CACHE_DIR"]
            else:
                os.environ["TFHUB_CACHE_DIR"] = before


def _copy_tree(source: str, folder: pathlib.Path) -> None:
    import tensorflow as tf

    if not tf.io.gfile.isdir(source):
        raise FileNotFoundError("there is no such folder, or it can't be reached")
    for place, _, names in tf.io.gfile.walk(source):
        inside = folder / place[len(source) :].strip("/")
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            tf.io.gfile.copy(posixpath.join(place, name), str(inside / name))


def _explain(handle: str, error: Exception, timeout: float) -> str:
    """Says in one line what went wrong with a download, and in one what to do."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        if error.code in (404, 410):
            why = f"the server does not have it (HTTP {error.code}). Compare the handle"
            return f"{handle}: {why} with the model's page."
        why = f"the server refused (HTTP {error.code} {error.reason})"
    elif isinstance(cause, TimeoutError):
        why = f"nothing came for {timeout:g} seconds"
    elif isinstance(error, urllib.error.URLError):
        why = f"no connection ({cause})"
    elif isinstance(error, (ConnectionError, FileNotFoundError)):
        why = str(error)
    else:
        why = f"the download broke off, or is not an archive of a SavedModel ({error})"
    return f"{handle}: {why}. {OFFLINE}"
