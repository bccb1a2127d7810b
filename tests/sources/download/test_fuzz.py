"""Truncations and flipped bits: none gets through to training unnoticed.

Where a damage leaves every byte of the unpacked model as it was (a bit of gzip's time,
the padding of a tar), there is nothing to notice; those are counted apart.
"""

from __future__ import annotations

import collections
import pathlib
import random
from collections.abc import Iterator

import pytest

from tests.sources.hub_server import send
from tlkit.errors import SourceError
from tlkit.files.digests import describe_files
from tlkit.sources import fetch, resolve
from tlkit.sources.download.download import fetch_url

_CASES = 200


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damages(content: bytes, kind: str, seed: int) -> Iterator[bytes]:
    """Yields so many damaged copies."""
    drawn = random.Random(f"{kind}{seed}")
    for _ in range(_CASES):
        if kind == "truncation":
            yield content[: drawn.randrange(len(content))]
        else:
            yield flipped(content, drawn.randrange(8 * len(content)))


def damaged_files(folder: pathlib.Path, kind: str) -> Iterator[tuple[str, bytes]]:
    """Yields a file of a folder and its damaged content, large ones more often."""
    drawn = random.Random(kind)
    paths = sorted(path for path in folder.rglob("*") if path.stat().st_size)
    paths = [path for path in paths if path.is_file()]
    sizes = [path.stat().st_size for path in paths]
    # Half of them by size; the others any, or small files would never be hit.
    for number in range(_CASES):
        weights = sizes if number % 2 else [1] * len(paths)
        (path,) = drawn.choices(paths, weights)
        content = path.read_bytes()
        if kind == "truncation":
            changed = content[: drawn.randrange(len(content))]
        else:
            changed = flipped(content, drawn.randrange(8 * len(content)))
        yield path.relative_to(folder).as_posix(), changed


KINDS = pytest.mark.parametrize("kind", ["truncation", "flipped bit"])


@KINDS
def test_damaged_downloads(server, cache, tiny_archive, tiny_model, kind):
    original = describe_files(tiny_model)
    seen = collections.Counter()
    for number, content in enumerate(damages(tiny_archive, kind, 0)):
        path = f"/tiny/{number}"
        # Of the right length, as far as the server says.
        server.answers[path] = lambda handler, content=content: send(handler, content)
        try:
            came = fetch_url(f"{server.url}{path}", verbose=0)
        except SourceError:
            seen["refused"] += 1
        else:
            same = describe_files(came) == original
            seen["the same model" if same else "unnoticed"] += 1
    assert seen["unnoticed"] == 0, seen
    assert seen["refused"] >= 0.9 * _CASES, seen
    assert seen.total() == _CASES
    kept = [path for path in cache.rglob("saved_model.pb")]
    assert len(kept) == seen["the same model"]


@KINDS
def test_damaged_entries_of_the_cache(server, cache, tiny_archive, kind):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    url = f"{server.url}/tiny/1"
    entry = fetch_url(url, verbose=0).parent
    original = describe_files(entry / "model")
    for number, (name, content) in enumerate(damaged_files(entry, kind), start=1):
        (entry / name).write_bytes(content)
        assert fetch_url(url, verbose=0) == entry / "model"
        assert len(server.requests) == 1 + number, f"unnoticed: {name}"
        assert describe_files(entry / "model") == original
    server.stop()
    for name, content in list(damaged_files(entry, kind))[:20]:
        before = (entry / name).read_bytes()
        (entry / name).write_bytes(content)
        with pytest.raises(SourceError, match="no connection"):
            fetch_url(url, verbose=0)
        (entry / name).write_bytes(before)
    assert fetch_url(url, verbose=0) == entry / "model"


@KINDS
def test_damaged_folders_with_a_lock(server, cache, tiny_archive, tmp_path, kind):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    folder = fetch(f"{server.url}/tiny/1", tmp_path / "tiny", verbose=0)
    for name, content in damaged_files(folder, kind):
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        with pytest.raises(SourceError, match="differs from its|is damaged"):
            resolve(folder)
        (folder / name).write_bytes(before)
    assert resolve(folder).path == folder


@KINDS
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_damaged_bundles(server, cache, tiny_archive, tmp_path, kind, ending):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    url, place = f"{server.url}/tiny/1", tmp_path / f"tiny.{ending}"
    bundle = fetch(url, place, bundle=True, verbose=0)
    original = describe_files(resolve(bundle).path)
    seen = collections.Counter()
    for content in damages(bundle.read_bytes(), kind, 1):
        place.write_bytes(content)
        try:
            came = resolve(place).path
        except SourceError:
            seen["refused"] += 1
        else:
            same = describe_files(came) == original
            seen["the same model" if same else "unnoticed"] += 1
    assert seen["unnoticed"] == 0, seen
    assert seen["refused"] >= 0.5 * _CASES, seen
