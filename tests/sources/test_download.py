from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest
import tensorflow as tf

from tlkit.errors import ExtraError, SourceError
from tlkit.sources import resolve
from tlkit.sources.download import fetch_bucket, fetch_url

from .conftest import FILES
from .hub_server import archive, send, slowly


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
    assert entry["files"]["assets/words.txt"] == 8
    assert set(entry["files"]) == {name for name in FILES if "." in name}
    assert [path.name for path in (cache / "models").iterdir()] == [path.parent.name]


@pytest.mark.parametrize("before", [None, "somewhere"])
def test_the_environment_is_left_alone(
    server, cache, tiny_archive, monkeypatch, before
):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    if before:
        monkeypatch.setenv("TFHUB_CACHE_DIR", before)
    fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert os.environ.get("TFHUB_CACHE_DIR") == before
    assert socket.getdefaulttimeout() is None


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
    with pytest.raises(
        SourceError, match="not a whole SavedModel, and was thrown away"
    ):
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
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120) for process in pair]
    assert [process.returncode for process in pair] == [0, 0], outputs
    paths = {pathlib.Path(out.decode().strip()) for out, _ in outputs}
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


def test_what_is_fetched_is_shown_unless_silent(server, cache, tiny_archive, capfd):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    server.answers["/tiny/2"] = lambda handler: send(handler, tiny_archive)
    fetch_url(f"{server.url}/tiny/1", verbose=0)
    assert "tiny" not in "".join(capfd.readouterr())
    fetch_url(f"{server.url}/tiny/2", verbose=1)
    assert capfd.readouterr().err == f"Fetching {server.url}/tiny/2\n"


def test_tensorflow_hub_works_without_pkg_resources(server, cache, tiny_archive):
    server.answers["/tiny/1"] = lambda handler: send(handler, tiny_archive)
    # None in sys.modules is how Python marks a module that is not there.
    script = (
        "import sys; sys.modules['pkg_resources'] = None;"
        "from tlkit.sources import resolve;"
        "print(resolve(sys.argv[1], verbose=0).path);"
        "assert 'tensorflow_hub' in sys.modules;"
        "assert 'pkg_resources' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, f"{server.url}/tiny/1"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert (pathlib.Path(done.stdout.strip()) / "saved_model.pb").exists()


def test_kaggle_needs_its_extra(cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    with pytest.raises(ExtraError, match=r'pip install "tlkit\[kaggle\]"'):
        resolve("kaggle://google/bit/tensorFlow2/m-r50x1/1", verbose=0)
