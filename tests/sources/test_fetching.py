from __future__ import annotations

import json
import os
import pathlib
import shutil
import tarfile
import time

import pytest
import tensorflow as tf

from tests.sources.hub_server import send
from tlkit.errors import SourceError
from tlkit.files.digests import describe_files
from tlkit.sources import Card, fetch, read_lock, resolve
from tlkit.sources.catalog.cards import read_card, write_card
from tlkit.sources.store.lock import LOCK_FILE, check_lock


@pytest.fixture
def url(server, cache, tiny_archive) -> str:
    server.answers["/owner/tiny/1"] = lambda handler: send(handler, tiny_archive)
    return f"{server.url}/owner/tiny/1"


def test_an_address_becomes_a_folder_that_needs_no_network(
    server, url, tiny_model, tmp_path
):
    path = fetch(url, tmp_path / "models/tiny", verbose=0)
    server.stop()
    assert path == tmp_path / "models/tiny"
    assert [p.name for p in path.parent.iterdir()] == ["tiny"]
    lock = check_lock(path)
    assert (lock.handle, lock.address, lock.licence) == (url, url, "")
    assert lock.files == describe_files(pathlib.Path(tiny_model))
    assert lock.archive["size"] > 0
    assert resolve(path).path == path
    assert tf.saved_model.load(str(path))(tf.ones([1, 500]))[0, 0] == 3.0


def test_a_folder_and_its_card(tiny_model, cache, tmp_path):
    source = pathlib.Path(shutil.copytree(tiny_model, tmp_path / "flowers/2"))
    card = Card(name="roses", kind="image", pixels="caffe", licence="MIT")
    write_card(source, card)
    (source / ".DS_Store").write_bytes(b"x")
    path = fetch(tmp_path / "flowers", tmp_path / "copy", verbose=0)
    assert read_lock(path).licence == "MIT"
    assert read_lock(path).address == str(tmp_path / "flowers")
    assert resolve(path).card == card
    assert resolve(path).name == "roses"


@pytest.mark.parametrize("name", ["bert", "bert.tar", "bert.tar.gz"])
def test_a_bundle_is_one_file_and_always_the_same(url, tmp_path, name):
    first = fetch(url, tmp_path / "1" / name, bundle=True, verbose=0)
    second = fetch(url, tmp_path / "2" / name, bundle=True, verbose=0)
    assert first.name == ("bert.tar" if name == "bert" else name)
    assert first.read_bytes() == second.read_bytes()
    with tarfile.open(first) as tar:
        members = tar.getmembers()
    assert members[0].name == LOCK_FILE
    names = [member.name for member in members[1:]]
    assert names == sorted(read_lock(first).files)
    assert {(m.mtime, m.uid, m.gid, m.uname) for m in members} == {(0, 0, 0, "")}


def test_a_bundle_elsewhere(server, url, tmp_path, monkeypatch):
    bundle = fetch(url, tmp_path / "tiny.tar", bundle=True, verbose=0)
    server.stop()
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    found = resolve(bundle)
    assert tf.saved_model.load(str(found.path))(tf.ones([1, 500]))[0, 0] == 3.0
    path = fetch(bundle, tmp_path / "tiny", verbose=0)
    # The same lock: it says where the files came from in the first place.
    assert read_lock(path) == read_lock(bundle)
    assert read_lock(path).address == url


def test_a_bundle_whose_files_are_not_those_of_its_lock(url, tmp_path):
    bundle = fetch(url, tmp_path / "tiny.tar", bundle=True, verbose=0)
    content = bundle.read_bytes()
    bundle.write_bytes(content.replace(b"one\ntwo\n", b"one\nten\n"))
    with pytest.raises(SourceError, match="Changed: assets/words.txt"):
        resolve(bundle)


def test_what_is_there_stays(url, server, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.txt").write_text("mine")
    (tmp_path / "file.tar").write_text("mine")
    for place, bundle in (("full", False), ("file.tar", True), ("file.tar", False)):
        with pytest.raises(SourceError, match="exists, and nothing is overwritten"):
            fetch(url, tmp_path / place, bundle=bundle, verbose=0)
    assert (tmp_path / "full/notes.txt").read_text() == "mine"
    assert (tmp_path / "file.tar").read_text() == "mine"
    assert server.requests == []
    (tmp_path / "empty").mkdir()
    assert fetch(url, tmp_path / "empty", verbose=0) == tmp_path / "empty"


def test_a_failure_leaves_nothing(server, cache, tmp_path):
    with pytest.raises(SourceError, match="the server does not have it"):
        fetch(f"{server.url}/none/1", tmp_path / "models/none", verbose=0)
    assert list((tmp_path / "models").iterdir()) == []


def test_places_that_cannot_be_are_refused(url, server, cache, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SourceError, match="model cannot be written: .*Give a path"):
        fetch(url, tmp_path / "file/model", verbose=0)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(SourceError, match="is the current folder"):
        fetch(url, ".", bundle=True, verbose=0)
    assert server.requests == []
    monkeypatch.setenv("TLKIT_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(SourceError, match="cannot be written: .*Set TLKIT_CACHE to"):
        resolve(url, verbose=0)
    assert (tmp_path / "file").read_text() == "mine"


def test_only_what_was_left_is_swept_away(url, tmp_path):
    old = time.time() - 3 * 24 * 3600
    others, working, left = (
        tmp_path / name
        for name in (".staging-site", ".tlkit-staging-now", ".tlkit-staging-left")
    )
    for folder in (others, working, left):
        (folder / "inside").mkdir(parents=True)
        (folder / "inside/archive").write_text("much")
        for path in (folder, folder / "inside", folder / "inside/archive"):
            os.utime(path, (old, old))
    os.utime(working / "inside/archive")  # a download that is still at work
    fetch(url, tmp_path / "model", verbose=0)
    assert (others / "inside/archive").is_file()
    assert (working / "inside/archive").is_file()
    assert not left.exists()


def test_a_full_disk_is_not_the_publishers_fault(url, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    none_free = type(usage)(usage.total, usage.total, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: none_free)
    with pytest.raises(SourceError, match="there is no room for it: .* 0 free."):
        fetch(url, tmp_path / "model", verbose=0)


def test_a_copy_of_what_is_read_only_can_be_written(tiny_model, cache, tmp_path):
    source = tmp_path / "locked"
    shutil.copytree(tiny_model, source)
    inside = [source, *source.rglob("*")]
    for path in inside:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        made = fetch(source, tmp_path / "copy", verbose=0)
    finally:
        for path in inside:
            path.chmod(0o755)
    assert check_lock(made).files == describe_files(source)
    # Root may write whatever the mode says.
    assert all(p.stat().st_mode & 0o600 == 0o600 for p in (made, *made.rglob("*")))


def test_a_folder_does_not_go_into_itself(tiny_model, tmp_path):
    source = pathlib.Path(shutil.copytree(tiny_model, tmp_path / "model"))
    with pytest.raises(SourceError, match="cannot be copied into itself"):
        fetch(source, source / "copy", verbose=0)
    assert describe_files(source) == describe_files(pathlib.Path(tiny_model))


def test_presets_are_no_saved_models(cache, tmp_path):
    with pytest.raises(SourceError, match="keras-nlp fetches and which is no SavedMo"):
        fetch("vgg16", tmp_path / "vgg16", verbose=0)


def write_preprocessor(folder: pathlib.Path) -> pathlib.Path:
    """Strings to rows of 4 ids, with a word list of its own."""
    folder.mkdir(parents=True)
    words = folder.parent / "words.txt"
    words.write_text("the\ngood\nbad\n")
    module = tf.Module()
    module.words = tf.saved_model.Asset(str(words))
    module.table = tf.lookup.StaticVocabularyTable(
        tf.lookup.TextFileInitializer(
            module.words.asset_path,
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
            *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        ),
        num_oov_buckets=1,
    )

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def call(texts):
        words = tf.strings.split(texts).to_tensor("", shape=[None, 4])
        ids = tf.cast(module.table.lookup(words), tf.int32)
        mask = tf.cast(words != "", tf.int32)
        return {
            "input_word_ids": ids * mask,
            "input_mask": mask,
            "input_type_ids": tf.zeros_like(ids),
        }

    module.__call__ = call
    tf.saved_model.save(module, str(folder))
    words.unlink()
    return folder


def write_encoder(folder: pathlib.Path) -> pathlib.Path:
    """Three inputs of ids to 5 numbers a token; it brings no vocabulary."""
    module = tf.Module()
    module.table = tf.Variable(tf.ones([8, 5]), name="word_embeddings/embeddings")
    names = ("input_word_ids", "input_mask", "input_type_ids")

    @tf.function(
        input_signature=[{n: tf.TensorSpec([None, None], tf.int32) for n in names}]
    )
    def call(inputs):
        x = tf.gather(module.table, inputs["input_word_ids"])
        return {"sequence_output": x, "pooled_output": x[:, 0]}

    module.__call__ = call
    tf.saved_model.save(module, str(folder))
    return folder


@pytest.fixture
def texts(cache, tmp_path) -> pathlib.Path:
    """An encoder whose card names a preprocessor that lies elsewhere."""
    made = write_preprocessor(tmp_path / "pre/1")
    write_card(made, Card(name="words", kind="preprocessor", licence="BSD-3-Clause"))
    folder = write_encoder(tmp_path / "encoder/1")
    card = Card(name="small", kind="text", preprocessor=str(made), licence="MIT")
    write_card(folder, card)
    return folder


@pytest.mark.parametrize("bundle", [False, True])
def test_a_preprocessor_comes_along(texts, tmp_path, monkeypatch, bundle):
    import tlkit
    from tlkit.models import preprocessing

    path = fetch(texts, tmp_path / "fetched", bundle=bundle, verbose=0)
    for name in ("pre", "encoder", "cache"):
        shutil.rmtree(tmp_path / name, ignore_errors=True)
    monkeypatch.setenv("TLKIT_OFFLINE", "1")
    if bundle:
        path = fetch(path, tmp_path / "unpacked", verbose=0)
    assert read_card(path).preprocessor == "./preprocessor"
    assert read_lock(path).licence == "MIT"
    assert read_lock(path / "preprocessor").licence == "BSD-3-Clause"
    assert f"preprocessor/{LOCK_FILE}" in read_lock(path).files

    model = tlkit.text_classifier(path, ["good", "bad"])
    made = preprocessing(model).batch(tf.constant(["the bad", "good"]))
    assert made["input_word_ids"].numpy().tolist() == [[0, 2, 0, 0], [1, 0, 0, 0]]
    assert model(made).shape == (2, 2)
    assert tf.saved_model.load(str(path)).signatures is not None

    # What is beside it is checked with it, and by itself.
    (words,) = (path / "preprocessor/assets").iterdir()
    words.write_text("the\nbad\ngood\n")
    for place in (path, path / "preprocessor"):
        with pytest.raises(SourceError, match=r"Changed: .*assets/words.txt"):
            resolve(place)


def test_a_fetched_folder_can_be_fetched(texts, tmp_path):
    first = fetch(texts, tmp_path / "first", verbose=0)
    second = fetch(first, tmp_path / "second", verbose=0)
    assert describe_files(second) == describe_files(first)
    # Without its lock it is a folder like any other, and gets a new one.
    (first / LOCK_FILE).unlink()
    third = fetch(first, tmp_path / "third", verbose=0)
    assert read_card(third).preprocessor == "./preprocessor"
    assert read_lock(third).files == read_lock(second).files
    assert json.loads((third / LOCK_FILE).read_text())["address"] == str(first)


def test_an_encoder_with_a_vocabulary_needs_no_preprocessor(cache, tmp_path):
    from tests.tiny import write_text_encoder

    source = write_text_encoder(tmp_path / "encoder/1")
    write_card(source, Card(name="t", kind="text", preprocessor="gs://nobody/has/it"))
    path = fetch(source, tmp_path / "copy", verbose=0)
    assert not (path / "preprocessor").exists()
    assert read_card(path).preprocessor == "gs://nobody/has/it"
