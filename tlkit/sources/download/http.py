"""Brings an archive from a server into a file, and compares the server's digests.

The bytes of a download: counted, shown, and known to be all of them.
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

from ..store.archives import MOST_BYTES

_CHUNK = 1 << 20
_ARCHIVES = (".tar", ".tar.gz", ".tgz")
_QUERY = "tf-hub-format=compressed"

# TF Hub's mirror in China has no answer to the query, but the archives themselves.
_MIRROR = "https://hub.tensorflow.google.cn/"
_MIRRORED = "https://gcs.tensorflow.google.cn/tfhub-modules/{}.tar.gz"

# x-goog-hash is Google's, Digest RFC 3230's, the others RFC 9530's; all may name
# several algorithms, in base64.
_HEADERS = ("x-goog-hash", "Digest", "Repr-Digest", "Content-Digest")
_DIGEST = re.compile(r"(md5|sha-256)=:?([A-Za-z0-9+/]+={0,2})", re.IGNORECASE)


class WrongDigest(ValueError):
    """What came is not what the server says it sent."""


def is_archive(name: str) -> bool:
    """Tells whether a file is an archive by its name."""
    return name.lower().endswith(_ARCHIVES)


def transfer(
    url: str, path: pathlib.Path, *, timeout: float, verbose: int
) -> dict[str, Any]:
    """Downloads the archive of a SavedModel into a file.

    Args:
        url: Its address: that of an archive, or one that answers as TF Hub does.
        path: The file, which holds what came before an error.
        timeout: Seconds without a byte after which to give up.
        verbose: 0 is silent, 1 shows progress.

    Returns:
        `size` and `sha256` of the archive.

    Raises:
        WrongDigest: The server sent a digest, and what came has another.
        OSError, http.client.HTTPException: The connection failed or was cut.
    """
    digests = {"sha-256": hashlib.sha256(), "md5": hashlib.md5(usedforsecurity=False)}
    with (
        path.open("wb") as file,
        urllib.request.urlopen(_archive_url(url), timeout=timeout) as answer,
        contextlib.closing(Response(answer, url, verbose=verbose)) as response,
    ):
        _check_room(response.length, path)
        while data := response.read(_CHUNK):
            file.write(data)
            for digest in digests.values():
                digest.update(data)
            if response.received > MOST_BYTES:
                raise WrongDigest(f"more than {MOST_BYTES:,} bytes came")
        headers, received = response.headers, response.received
    for name, announced in _announced(headers):
        if announced != digests[name].digest():
            raise WrongDigest(
                f"the server announced the {name} {announced.hex()}, and what came has "
                f"{digests[name].hexdigest()}"
            )
    return {"size": received, "sha256": digests["sha-256"].hexdigest()}


def _archive_url(url: str) -> str:
    """The address at which a server that answers as TF Hub does has the archive."""
    if url.startswith(_MIRROR):
        return _MIRRORED.format(url.removeprefix(_MIRROR))
    parsed = urllib.parse.urlsplit(url)
    # What is an archive needs no question, and a signed address bears none.
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
    """Yields the digests that a server sent of the very bytes that came."""
    stored = headers.get("x-goog-stored-content-encoding", "identity")
    came = headers.get("Content-Encoding", "identity")
    # Google's storage unpacks what was stored packed for those who don't ask for
    # gzip; its hash and its length are still those of the packed bytes.
    google = stored.lower() == came.lower()
    for header in _HEADERS:
        if header == "x-goog-hash" and not google:
            continue
        for value in headers.get_all(header, ()):
            for name, text in _DIGEST.findall(value):
                yield from _decoded(name.lower(), text)
    yield from _decoded("md5", headers.get("Content-MD5", ""))


def _decoded(name: str, text: str) -> Iterator[tuple[str, bytes]]:
    """Yields a digest unless it is none: some servers send it in hexadecimal."""
    lengths = {"md5": 16, "sha-256": 32}
    with contextlib.suppress(binascii.Error):
        announced = base64.b64decode(text.strip(), validate=True)
        if len(announced) == lengths[name]:
            yield name, announced


# === Response ===


_LINE_EVERY = 30.0  # seconds, where there is no terminal


class Response:
    """An HTTP response that notices when the connection is cut.

    `http.client` takes such an end for the end of the answer.

    Attributes:
        received: Bytes read so far.
        length: Bytes that the server announced, or None.
        headers: The headers of the answer.
    """

    def __init__(
        self, response: http.client.HTTPResponse, what: str, *, verbose: int
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
            print(f"Fetching {what}", file=sys.stderr, flush=True)
        self._bar = tqdm.tqdm(
            total=self.length,
            unit="B",
            unit_scale=True,
            disable=not (verbose and terminal),
        )

    def read(self, size: int = -1) -> bytes:
        """Reads up to `size` bytes; `b""` is the end.

        Raises:
            ConnectionError: The end came before all that was announced.
        """
        data = self._response.read() if size < 0 else self._response.read(size)
        self.received += len(data)
        self._bar.update(len(data))
        if not data and size and self.length and self.received < self.length:
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
