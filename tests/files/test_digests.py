import hashlib
import os

from tlkit.files import damages, describe_files, sha256_of


def test_a_folder_is_compared_with_its_list(tmp_path):
    (tmp_path / "inner").mkdir()
    for name in ("a", "b", "inner/c", "inner/.DS_Store"):
        (tmp_path / name).write_text(name)
    files = describe_files(tmp_path, leave_out=["b"])
    assert list(files) == ["a", "inner/c"]
    assert files["a"] == {"size": 1, "sha256": hashlib.sha256(b"a").hexdigest()}
    assert sha256_of(tmp_path / "a") == files["a"]["sha256"]
    assert damages(tmp_path, files, leave_out=["b"]) == []

    (tmp_path / "a").write_text("A")
    (tmp_path / "inner/c").unlink()
    assert damages(tmp_path, files) == [
        "missing: inner/c",
        "not in it before: b",
        "changed: a",
    ]


def test_an_undamaged_folder_is_read_once(tmp_path, monkeypatch):
    reads = []
    path = tmp_path / "a"
    path.write_text("a")
    os.utime(path, (1, 1))
    monkeypatch.setattr("tlkit.files.digests._TICK", -60.0)  # ctime is now
    monkeypatch.setattr("tlkit.files.digests.sha256_of", lambda p: reads.append(p) or 1)
    files = {"a": {"size": 1, "sha256": 1}}
    for _ in range(2):
        assert damages(tmp_path, files, key="k") == []
    assert reads == [path]
    assert damages(tmp_path, files) == []  # no key: always read
    assert reads == [path] * 2
    path.write_text("b")
    damages(tmp_path, files, key="k")
    assert reads == [path] * 3
