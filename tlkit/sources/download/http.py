"""Transfers an archive over HTTP into a file, and compares the server's digests.

Tested in tests/sources/download/test_download.py.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import http.client
import pathlib
import re
import shutil
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from typing import Any

import tqdm

from ..store.archives import MAX_BYTES

_CHUNK = 1 << 20
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_QUERY = "tf-hub-format=compressed"
_LINE_EVERY = 30.0  # seconds between progress lines without a terminal

# TF Hub's mirror in China does not respond to the query, but serves the archives.
_MIRROR = "https://hub.tensorflow.google.cn/"
_MIRRORED = "https://gcs.tensorflow.google.cn/tfhub-modules/{}.tar.gz"

# x-goog-hash is Google's, Digest is RFC 3230, the others are RFC 9530. Each may have
# several algorithms, in base64.
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
        urllib.request.urlopen(_archive_url(url), timeout=timeout) as plain_response,
        contextlib.closing(_Response(plain_response, url, verbose=verbose)) as response,
    ):
        _check_room(response.length, path)
        while data := response.read(_CHUNK):
            file.write(data)
            for digest in digests.values():
                digest.update(data)
            if response.received > MAX_BYTES:
                raise WrongDigest(f"more than {MAX_BYTES:,} bytes came")
        headers, received = response.headers, response.received
    for name, announced in _announced(headers):
        if announced != digests[name].digest():
            raise WrongDigest(
                f"the server announced the {name} {announced.hex()}, and the download "
                f"has {digests[name].hexdigest()}"
            )
    return {"size": received, "sha256": digests["sha-256"].hexdigest()}


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
    """Yields algorithm and digest of the transferred bytes, from the headers."""
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    transferred = headers.get("Content-Encoding", "identity")
    # Google's storage decompresses files for clients that do not accept gzip. Its hash
    # is still that of the compressed file.
    is_same = stored.lower() == transferred.lower()
    for header in _HEADERS:
        if header == "x-goog-hash" and not is_same:
            continue
        for value in headers.get_all(header, ()):
            for name, text in _DIGEST.findall(value):
                yield from _decoded(name.lower(), text)
    yield from _decoded("md5", headers.get("Content-MD5", ""))


def _decoded(name: str, text: str) -> Iterator[tuple[str, bytes]]:
    """Yields a base64 digest; nothing if it is invalid, such as hexadecimal."""
    lengths = {"md5": 16, "sha-256": 32}
    with contextlib.suppress(binascii.Error):
        announced = base64.b64decode(text.strip(), validate=True)
        if len(announced) == lengths[name]:
            yield name, announced


class _Response:
    """An HTTP response that detects a cut connection and shows progress.

    `http.client` treats a cut connection as the end of the response.

    Attributes:
        received: Bytes read so far.
        length: Bytes that the server announced, or None.
        headers: The headers of the response.
    """

    def __init__(
        self, response: http.client.HTTPResponse, url: str, *, verbose: int
    ) -> None:
        self.received = 0
        announced = response.headers.get("Content-Length", "")
        self.length = int(announced) if announced.isdecimal() else None
        self.headers = response.headers
        self._response = response
        terminal = sys.stderr.isatty()
        self._lines = bool(verbose) and not terminal
        self._last_line = time.monotonic()
        if verbose:
            print(f"Fetching {url}", file=sys.stderr, flush=True)
        self._bar = tqdm.tqdm(
            total=self.length,
            unit="B",
            unit_scale=True,
            disable=not (verbose and terminal),
        )

    def read(self, size: int) -> bytes:
        """Reads at most `size` bytes; `b""` is the end.

        Raises:
            ConnectionError: The response ended before its announced length.
        """
        data = self._response.read(size)
        self.received += len(data)
        self._bar.update(len(data))
        if not data and self.length and self.received < self.length:
            raise ConnectionError(
                f"the connection was cut after {self.received:,} of "
                f"{self.length:,} bytes"
            )
        if self._lines and time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            of_all = f" of {self.length / 1e6:,.0f}" if self.length else ""
            line = f"  {self.received / 1e6:,.0f}{of_all} MB"
            print(line, file=sys.stderr, flush=True)
        return data

    def close(self) -> None:
        """Closes the connection and the progress bar."""
        self._bar.close()
        self._response.close()
