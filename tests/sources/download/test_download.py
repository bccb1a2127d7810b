from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time

import pytest
import tensorflow as tf

from tests import forked
from tests.sources.conftest import FILES
from tests.sources.hub_server import archive, send, slowly
from tlkit.errors import ExtraError, SourceError
from tlkit.files.digests import describe_files
from tlkit.sources import resolve
from tlkit.sources.download.download import fetch_bucket, fetch_url


def files_in(folder: pathlib.Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file()]


def test_a_model_is_fetched_once_and_then_needs_no_network(server, cache, tiny_archive):
    server.answers["/owner/tiny/1"] = lambda handler: send(handler, tiny_archive)
    url = f"{server.url}/owner/tiny/1"

    first = resolve(url, verbose=0)
    server.stop()
    second = resolve(url, verbose=0)

    assert first == second
    assert first.name == "tiny"
    assert first.tried == (url,)
    assert server.requests == ["/owner/tiny/1"]
    model = tf.saved_model.load(str(second.path))
    assert model(tf.ones([1, 500]))[0, 7] == 3.0
    assert cache in second.path.parents


def test_the_entry_says_what_it_is(server, cache, tiny_archive, tiny_model):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    url = f"{server.url}/tiny/1"
    path = fetch_url(url, verbose=0)
    entry = json.loads((path.parent / "handle.json").read_text("utf-8"))
    assert path.parent.name == hashlib.sha256(url.encode()).hexdigest()
    assert entry["handle"] == url
    assert entry["time"].endswith("+00:00")
    words = (tiny_model / "assets/words.txt").read_bytes()
    digest = hashlib.sha256(words).hexdigest()
    assert entry["files"]["assets/words.txt"] == {"size": 8, "sha256": digest}
    assert set(entry["files"]) == {name for name in FILES if "." in name}
    archive_digest = hashlib.sha256(tiny_archive).hexdigest()
    size = len(tiny_archive)
    assert entry["archive"] == {"size": size, "sha256": archive_digest}
    assert [path.name for path in (cache / "models").iterdir()] == [path.parent.name]


@pytest.mark.parametrize("cached", [True, False])
def test_an_entry_that_notes_no_digests_is_fetched_again(
    server, cache, tiny_archive, cached
):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    path = fetch_url(f"{server.url}/tiny/1", verbose=0)
    note = path.parent / "handle.json"
    entry = json.loads(note.read_text("utf-8"))
    if not cached:
        entry["files"] = {name: facts["size"] for name, facts in entry["files"].items()}
        note.write_text(json.dumps(entry), "utf-8")
    assert fetch_url(f"{server.url}/tiny/1", verbose=0) == path
    assert len(server.requests) == (1 if cached else 2)


@pytest.mark.parametrize(
    ("header", "form"),
    [
        ("x-goog-hash", "crc32c=AAAAAA==,md5={md5}"),
        ("Digest", "MD5={md5},SHA-256={sha256}"),
        ("Content-Digest", "sha-256=:{sha256}:"),
        ("Content-MD5", "{md5}"),
    ],
)
@pytest.mark.parametrize("right", [True, False])
def test_digests_that_the_server_sends_are_compared(
    server, cache, tiny_model, header, form, right
):
    # Not packed: nothing else would notice a changed word in an asset.
    sent = archive(tiny_model, FILES, mode="w")
    came = sent if right else sent.replace(b"one\ntwo\n", b"one\nten\n")
    encode = lambda digest: base64.b64encode(digest).decode("ascii")
    value = form.format(
        md5=encode(hashlib.md5(sent).digest()),
        sha256=encode(hashlib.sha256(sent).digest()),
    )
    server.answers["/tiny/1"] = lambda handler: send(
        handler, came, headers={header: value}
    )
    if right:
        assert fetch_url(f"{server.url}/tiny/1", verbose=0).is_dir()
        return
    with pytest.raises(SourceError, match="the server announced the (md5|sha-256)"):
        fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert files_in(cache) == []


def test_the_digest_of_what_was_unpacked_on_the_way_says_nothing(
    server, cache, tiny_archive
):
    # Google's storage unpacks what is stored packed, and sends the stored one's hash.
    headers = {"x-goog-hash": "md5=" + "A" * 22 + "=="}
    headers |= {"x-goog-stored-content-encoding": "gzip"}
    server.answers["/tiny/1"] = lambda handler: send(
        handler, tiny_archive, headers=headers
    )
    assert fetch_url(f"{server.url}/tiny/1", verbose=0).is_dir()


def test_the_address_of_an_archive_is_asked_as_it_is(server, cache, tiny_archive):
    server.answers["/tiny.tar.gz"] = lambda handler: send(handler, tiny_archive)
    asked = f"{server.url}/tiny.tar.gz?signed=yes"
    assert (resolve(asked, verbose=0).path / "saved_model.pb").exists()


def test_an_archive_with_one_folder_in_it(server, cache, tiny_model):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tiny_model, arcname="model")
    server.answers["/tiny/1"] = lambda handler: send(handler, buffer.getvalue())
    path = fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert (path / "assets" / "words.txt").read_text("utf-8") == "one\ntwo\n"


def test_after_a_killed_download_the_next_starts_at_once(server, cache, tiny_archive):
    half_way = threading.Event()

    def slow(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(tiny_archive)))
        handler.end_headers()
        handler.wfile.write(tiny_archive[: len(tiny_archive) // 2])
        handler.wfile.flush()
        half_way.set()
        server.released.wait(60)

    server.answers["/tiny/1"] = slow
    url = f"{server.url}/tiny/1"
    script = "import sys; from tlkit.sources import resolve; resolve(sys.argv[1])"
    command = [sys.executable, "-c", script, url]
    with forked.Popen(command, stderr=subprocess.DEVNULL) as process:
        assert half_way.wait(60)
        time.sleep(0.2)
        process.kill()
        process.wait(10)
    assert process.returncode == -signal.SIGKILL

    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    begin = time.monotonic()
    path = fetch_url(url, verbose=0)
    assert time.monotonic() - begin < 5  # tensorflow-hub: twenty minutes
    assert (path / "saved_model.pb").exists()
    assert server.requests == ["/tiny/1"] * 2


def test_a_handle_that_is_not_found_names_the_address(server, cache):
    url = f"{server.url}/owner/nothing/1"
    with pytest.raises(
        SourceError, match=f"{url}: the server does not have it"
    ) as info:
        resolve(url, verbose=0)
    assert "HTTP 404" in str(info.value)
    assert files_in(cache) == []


def test_a_refusal_names_the_status(server, cache):
    server.answers["/tiny/1"] = lambda handler: send(handler, b"no", status=403)
    with pytest.raises(SourceError, match="refused .HTTP 403"):
        fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert files_in(cache) == []


def test_no_network_suggests_a_folder(cache):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/tiny/1"
    with pytest.raises(SourceError, match="no connection .*give its folder") as info:
        resolve(url, verbose=0)
    assert url in str(info.value)
    assert files_in(cache) == []


def test_a_silent_server_times_out(server, cache):
    server.answers["/tiny/1"] = lambda handler: server.released.wait(10)
    with pytest.raises(SourceError, match="nothing came for 0.2 seconds"):
        fetch_url(f"{server.url}/tiny/1", timeout=0.2, verbose=0)
    server.released.set()
    assert files_in(cache) == []


def test_a_server_that_stops_half_way_times_out(server, cache, tiny_archive):
    server.answers["/tiny/1"] = slowly(tiny_archive, seconds=1.0)
    with pytest.raises(SourceError, match="nothing came for 0.2 seconds"):
        fetch_url(f"{server.url}/tiny/1", timeout=0.2, verbose=0)
    assert files_in(cache) == []


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_cut_connection_leaves_nothing(server, cache, tiny_archive, share):
    sent = tiny_archive[: int(len(tiny_archive) * share)]
    server.answers["/tiny/1"] = lambda handler: send(
        handler, sent, length=len(tiny_archive)
    )
    with pytest.raises(SourceError, match="the connection was cut after"):
        fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert files_in(cache) == []


@pytest.mark.parametrize("members", range(1, len(FILES)))
def test_a_cut_between_two_members_leaves_nothing(server, cache, tiny_model, members):
    # tarfile takes an archive that ends where a member ends for a whole one.
    whole = archive(tiny_model, FILES[:members], mode="w")
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 512
    server.answers["/tiny/1"] = lambda handler: send(handler, whole[:end])
    with pytest.raises(SourceError, match="not a complete SavedModel and was deleted"):
        fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert files_in(cache) == []


def test_a_flipped_bit_in_the_variables_leaves_nothing(server, cache, tiny_model):
    damaged = bytearray(archive(tiny_model, FILES, mode="w"))
    where = damaged.index(tf.constant([3.0] * 500).numpy().tobytes())
    damaged[where + 100] ^= 1
    server.answers["/tiny/1"] = lambda handler: send(handler, bytes(damaged))
    with pytest.raises(SourceError, match="variables .* are damaged"):
        fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert files_in(cache) == []


def test_a_page_in_place_of_an_archive_leaves_nothing(server, cache):
    page = b"<html>Please sign in</html>" * 100
    server.answers["/tiny/1"] = lambda handler: send(handler, page)
    with pytest.raises(SourceError, match="is not an archive of a SavedModel"):
        fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert files_in(cache) == []


def test_an_interrupt_leaves_nothing(server, cache, tiny_archive):
    main = threading.main_thread().ident

    def interrupt(handler):
        send(handler, tiny_archive[:200], length=len(tiny_archive))
        signal.pthread_kill(main, signal.SIGINT)
        server.released.wait(10)

    server.answers["/tiny/1"] = interrupt
    with pytest.raises(KeyboardInterrupt):
        fetch_url(f"{server.url}/tiny/1", verbose=0)
    server.released.set()
    assert files_in(cache) == []
    assert socket.getdefaulttimeout() is None


def test_a_failed_download_can_be_repeated(server, cache, tiny_archive):
    url = f"{server.url}/tiny/1"
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive[:300])
    with pytest.raises(SourceError):
        fetch_url(url, verbose=0)
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    assert (fetch_url(url, verbose=0) / "saved_model.pb").exists()


def test_a_damaged_cache_entry_is_fetched_again(server, cache, tiny_archive):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    path = fetch_url(f"{server.url}/tiny/1", verbose=0)
    # As cleaners of temporary folders do.
    for name in files_in(path):
        os.unlink(name)
    again = fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert again == path
    assert (again / "assets" / "words.txt").read_text("utf-8") == "one\ntwo\n"
    assert len(server.requests) == 2


def test_two_processes_may_fetch_the_same_at_once(server, cache, tiny_archive):
    server.answers["/tiny/1"] = slowly(tiny_archive, seconds=1.0)
    script = (
        "import sys; from tlkit.sources import resolve;"
        "print(resolve(sys.argv[1], verbose=0).path)"
    )
    command = [sys.executable, "-c", script, f"{server.url}/tiny/1"]
    pair = [
        forked.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    paths = {pathlib.Path(out.strip()) for out, _ in outputs}
    assert len(paths) == 1
    assert (paths.pop() / "saved_model.pb").exists()
    assert len(list((cache / "models").iterdir())) == 1


def test_what_tensorflow_hub_keeps_is_used_if_it_is_whole(
    server, cache, tiny_archive, tiny_model, tmp_path, monkeypatch
):
    url = f"{server.url}/tiny/1"
    kept = tmp_path / "hub" / hashlib.sha1(url.encode()).hexdigest()
    shutil.copytree(tiny_model, kept)
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(kept.parent))
    assert fetch_url(url, verbose=0) == kept
    assert server.requests == []

    (kept / "assets" / "words.txt").unlink()
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    assert cache in fetch_url(url, verbose=0).parents
    assert server.requests == ["/tiny/1"]
    assert os.environ["TFHUB_CACHE_DIR"] == str(kept.parent)


def test_a_folder_in_a_bucket_is_copied(cache, tiny_model):
    bucket = "ram://bucket/tiny"
    for name in FILES:
        if (tiny_model / name).is_file():
            tf.io.gfile.makedirs(os.path.dirname(f"{bucket}/{name}"))
            tf.io.gfile.copy(str(tiny_model / name), f"{bucket}/{name}", overwrite=True)
    path = fetch_bucket(bucket, verbose=0)
    assert tf.saved_model.load(str(path))(tf.ones([1, 500]))[0, 0] == 3.0
    with pytest.raises(SourceError, match="ram://bucket/none: there is no such folder"):
        fetch_bucket("ram://bucket/none", verbose=0)


def test_an_archive_in_a_bucket_is_unpacked(cache, tiny_model, tiny_archive):
    for name, content in (("tiny.tar.gz", tiny_archive), ("evil.tar", b"no archive")):
        with tf.io.gfile.GFile(f"ram://{name}", "wb") as file:
            file.write(content)
    path = fetch_bucket("ram://tiny.tar.gz", verbose=0)
    assert describe_files(path) == describe_files(tiny_model)
    entry = json.loads((path.parent / "handle.json").read_text("utf-8"))
    digest = hashlib.sha256(tiny_archive).hexdigest()
    assert entry["archive"] == {"size": len(tiny_archive), "sha256": digest}
    with pytest.raises(SourceError, match="is not an archive of a SavedModel"):
        fetch_bucket("ram://evil.tar", verbose=0)


def test_what_is_fetched_is_shown_unless_silent(server, cache, tiny_archive, capfd):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    server.answers["/tiny/2"] = lambda handler: send(handler, tiny_archive)
    fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert "tiny" not in "".join(capfd.readouterr())
    fetch_url(f"{server.url}/tiny/2", verbose=1)
    assert capfd.readouterr().err == f"Fetching {server.url}/tiny/2\n"


def test_kaggle_needs_its_extra(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ExtraError, match=r'pip install "tlkit\[kaggle\]"'):
        resolve("kaggle://google/bit/tensorFlow2/m-r50x1/1", verbose=0)
