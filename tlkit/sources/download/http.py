"""Transfers an archive over HTTP into a file, and compares the server's digests.

Tested in tests/sources/download/test_download.py.
"""

import base64
import binascii
import contextlib
import errno
import hashlib
import http.client
import pathlib
import re
import shutil
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

from ...progress import print_line, progress
from ..store.archives import MAX_BYTES

_CHUNK = 10**6  # bytes
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_QUERY = "tf-hub-format=compressed"

# TF Hub's mirror in China does not respond to the query, but serves the archives.
_MIRROR = "https://hub.tensorflow.google.cn/"
_MIRRORED = "https://gcs.tensorflow.google.cn/tfhub-modules/{}.tar.gz"

# x-goog-hash is Google's, Digest is RFC 3230, the others are RFC 9530. Each may contain
# digests of several algorithms, in base64.
_HEADERS = ("x-goog-hash", "Digest", "Repr-Digest", "Content-Digest")
_DIGEST = re.compile(r"(md5|sha-256)=:?([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)


class WrongDigest(ValueError):
    """The received bytes differ from those that the server announced."""


def is_archive(name: str) -> bool:
    """Returns whether a file name is that of an archive."""
    return name.lower().endswith(_ARCHIVES)


def transfer(
    url: str, path: pathlib.Path, *, timeout: float, verbose: int
) -> dict[str, Any]:
    """Downloads the archive of a SavedModel into a file.

    Args:
        url: Address of an archive, or one that responds as TF Hub does.
        path: The file. After an error it may hold a part of the archive.
        timeout: Seconds without a byte after which the transfer fails.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        `size` and `sha256` of the archive.

    Raises:
        WrongDigest: The server sent a digest, and the archive has another one.
        OSError, http.client.HTTPException: The connection failed or was cut.
    """
    digests = {"sha-256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with (
        path.open("wb") as file,
        urllib.request.urlopen(_archive_url(url), timeout=timeout) as response,
    ):
        length = response.headers.get("Content-Length", "")
        length = int(length) if length.isdecimal() else None
        _check_room(length, path)
        if verbose:
            print_line(f"Fetching {url}")
        for chunk in _chunks(response, length, verbose=verbose):
            file.write(chunk)
            for digest in digests.values():
                digest.update(chunk)
            if file.tell() > MAX_BYTES:
                raise WrongDigest(f"more than {MAX_BYTES:,} bytes came")
    for name, announced in _announced(response.headers):
        if announced != digests[name].digest():
            raise WrongDigest(
                f"the server announced the {name} {announced.hex()}, and the download "
                f"has {digests[name].hexdigest()}"
            )
    size = path.stat().st_size
    return {"size": size, "sha256": digests["sha-256"].hexdigest()}


def _archive_url(url: str) -> str:
    """Returns the address of the archive on a server that responds as TF Hub does."""
    if url.startswith(_MIRROR):
        return _MIRRORED.format(url.removeprefix(_MIRROR))
    parsed = urllib.parse.urlsplit(url)
    # Archives need no query, and a signed address becomes invalid by one.
    if is_archive(parsed.path) or _QUERY in parsed.query.split("&"):
        return url
    query = f"{parsed.query}&{_QUERY}" if parsed.query else _QUERY
    return urllib.parse.urlunsplit(parsed._replace(query=query))


def _check_room(length: int | None, path: pathlib.Path) -> None:
    free = shutil.disk_usage(path.parent).free
    if length and length > free:
        lack = f"it has {length:,} bytes, and the disk of {path.parent} {free:,} free"
        raise OSError(errno.ENOSPC, lack)


def _announced(headers: Message) -> Iterator[tuple[str, bytes]]:
    """Yields the algorithm and value of each digest in the headers of a response."""
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    transferred = headers.get("Content-Encoding", "identity")
    # Google's storage decompresses files for clients that do not accept gzip. The hash
    # that it announces is still that of the compressed file.
    is_same = stored.lower() == transferred.lower()
    for header in _HEADERS:
        if header == "x-goog-hash" and not is_same:
            continue
        for value in headers.get_all(header, ()):
            for name, text in _DIGEST.findall(value):
                yield from _decoded(name.lower(), text)
    yield from _decoded("md5", headers.get("Content-MD5", ""))


def _decoded(name: str, text: str) -> Iterator[tuple[str, bytes]]:
    """Decodes and yields a base64 digest; yields nothing if it is invalid."""
    lengths = {"md5": 16, "sha-256": 32}
    with contextlib.suppress(binascii.Error):
        announced = base64.b64decode(text.strip(), validate=True)
        if len(announced) == lengths[name]:
            yield name, announced


def _chunks(
    response: http.client.HTTPResponse, length: int | None, *, verbose: int
) -> Iterator[bytes]:
    """Yields the bytes of a response in chunks, and shows progress.

    Raises:
        ConnectionError: The response ended before its announced length, which
            `http.client` does not notice.
    """
    received = 0
    for chunk in progress(
        iter(lambda: response.read(_CHUNK), b""),
        total=None if length is None else -(-length // _CHUNK),
        what="MB fetched",
        verbose=verbose,
    ):
        received += len(chunk)
        yield chunk
    if length and received < length:
        raise ConnectionError(
            f"the connection was cut after {received:,} of {length:,} bytes"
        )
