from __future__ import annotations

import gzip
import io
import pathlib
import tarfile

import pytest

from tests.sources.conftest import FILES
from tests.sources.hub_server import archive, send
from tlkit.errors import SourceError
from tlkit.files.digests import describe_files
from tlkit.sources import resolve
from tlkit.sources.store.archives import IncompleteArchive, UnsafeArchive, unpack


def member(name: str, content: bytes = b"", **fields) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, content


def packed(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def link(name: str, to: str, kind: bytes) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=to)


HOSTILE = {
    "above": ([member("../evil", b"x")], "leads out of the folder"),
    "above, in the middle": ([member("a/../../evil", b"x")], "leads out"),
    "absolute": ([member("/tmp/evil", b"x")], "leads out of the folder"),
    "a drive": ([member("C:evil", b"x")], "leads out of the folder"),
    "a backslash": ([member("..\\evil", b"x")], "leads out of the folder"),
    "a symbolic link": ([link("a", "/etc", tarfile.SYMTYPE)], "a link to '/etc'"),
    "a link, and through it": (
        [link("a", "..", tarfile.SYMTYPE), member("a/evil", b"x")],
        "a link to '..'",
    ),
    "a hard link": (
        [member("saved_model.pb", b"x"), link("b", "saved_model.pb", tarfile.LNKTYPE)],
        "a link to 'saved_model.pb'",
    ),
    "a device": ([member("a", type=tarfile.CHRTYPE)], "a device or a pipe"),
    "a disk": ([member("a", type=tarfile.BLKTYPE)], "a device or a pipe"),
    "a pipe": ([member("a", type=tarfile.FIFOTYPE)], "a device or a pipe"),
    "a kind of its own": ([member("a", type=b"Z")], "of an unknown kind"),
    "one name twice": ([member("a", b"x"), member("./a", b"y")], "'./a' twice"),
    "a folder and a file": ([member("a", b"x"), member("a/b", b"y")], "'a/b' twice"),
    "no name": ([member(".", b"x")], "twice"),
    "too many": (
        [member(f"{i % 100}/{i}") for i in range(10_001)],
        "more than 10,000 files",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("mode", ["w:gz", "w"])
def test_hostile_archives_are_refused(name, mode, tmp_path):
    members, said = HOSTILE[name]
    (tmp_path / "a.tar").write_bytes(packed(*members, mode=mode))
    (tmp_path / "out" / "inner").mkdir(parents=True)
    with pytest.raises(UnsafeArchive, match=said):
        unpack(tmp_path / "a.tar", tmp_path / "out" / "inner")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["inner"]
    assert not (tmp_path / "evil").exists()


def zeros(megabytes: int) -> bytes:
    content = bytes(megabytes * 10**6)
    return gzip.compress(packed(member("zeros", content), mode="w"))


def sparse() -> bytes:
    """A member that has some bytes here and a terabyte on the disk."""
    info, _ = member("holes", type=tarfile.GNUTYPE_SPARSE)
    info.size = 512
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\x0000000001000\x00"
    header[483:495] = b"\x80" + (10**12).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header) + bytes(512 + 1024)


def long_header() -> bytes:
    """A header that says a member's name in 150 MB."""
    info, _ = member("././@LongLink", type=tarfile.GNUTYPE_LONGNAME)
    info.size = 150 * 10**6
    header = info.tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(header + b"a" * info.size + bytes(2048), 1)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: zeros(150), "it is a decompression bomb"),
        (sparse, "'holes' is of an unknown kind"),
        (long_header, "it is a decompression bomb"),
    ],
)
def test_bombs_are_refused(make, said, tmp_path):
    (tmp_path / "a.tar").write_bytes(make())
    (tmp_path / "out").mkdir()
    with pytest.raises(UnsafeArchive, match=said):
        unpack(tmp_path / "a.tar", tmp_path / "out")
    written = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert written <= 101 * 10**6


def test_weights_that_shrink_are_no_bomb(tmp_path):
    (tmp_path / "a.tar").write_bytes(zeros(90))
    (tmp_path / "out").mkdir()
    unpack(tmp_path / "a.tar", tmp_path / "out")
    assert (tmp_path / "out" / "zeros").stat().st_size == 90 * 10**6


def test_a_size_that_is_not_there_is_noticed(tmp_path):
    info, _ = member("a")
    info.size = 10**12
    (tmp_path / "a.tar").write_bytes(info.tobuf() + b"x" * 512)
    (tmp_path / "out").mkdir()
    with pytest.raises(tarfile.ReadError, match="unexpected end of data"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_an_archive_that_ends_between_two_files_is_noticed(tmp_path):
    whole = packed(member("a", b"x"), member("b", b"y"), mode="w")
    (tmp_path / "a.tar").write_bytes(whole[:1024])
    (tmp_path / "out").mkdir()
    with pytest.raises(IncompleteArchive, match="lacks its end mark"):
        unpack(tmp_path / "a.tar", tmp_path / "out")


def test_gzips_checksum_counts(tmp_path):
    # Not compressed, so that a flipped bit gives a whole archive with another letter.
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", compresslevel=0) as file:
        file.write(packed(member("words.txt", b"one two three"), mode="w"))
    content = buffer.getvalue().replace(b"two", b"ten")
    (tmp_path / "a.tar.gz").write_bytes(content)
    (tmp_path / "out").mkdir()
    with pytest.raises(gzip.BadGzipFile, match="CRC check failed"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out")
    # What tensorflow-hub 0.16.1 reads its downloads with takes it.
    with tarfile.open(fileobj=io.BytesIO(content), mode="r|*") as tar:
        assert tar.extractfile(next(iter(tar))).read() == b"one ten three"


def test_a_hostile_download_leaves_nothing(server, cache, tmp_path):
    body = packed(*HOSTILE["above"][0])
    server.answers["/evil/1"] = lambda handler: send(handler, body)
    with pytest.raises(SourceError, match="its archive was rejected: '../evil' leads"):
        resolve(f"{server.url}/evil/1", verbose=0)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_an_archive_on_this_machine_is_a_source(tiny_model, cache, tmp_path, mode):
    path = tmp_path / ("tiny.tar" if mode == "w" else "tiny.tgz")
    path.write_bytes(archive(tiny_model, FILES, mode=mode))
    found = resolve(path)
    assert (found.name, found.tried) == ("tiny", (str(path),))
    assert cache in found.path.parents
    assert describe_files(found.path) == describe_files(pathlib.Path(tiny_model))
    # Known by its digest: a copy of it is the same.
    path.rename(tmp_path / "other.tar")
    assert resolve(tmp_path / "other.tar").path == found.path
