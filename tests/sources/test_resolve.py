from __future__ import annotations

import dataclasses
import pathlib
import shutil

import pytest

from tlkit.errors import SourceError
from tlkit.sources import CATALOG, Card, resolve
from tlkit.sources.catalog.cards import read_card, write_card


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch, cache) -> pathlib.Path:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TLKIT_SAVED_MODELS", raising=False)
    return folder


def copy(model: pathlib.Path, *places: str) -> None:
    for place in places:
        shutil.copytree(model, place)


def test_a_folder(tiny_model):
    copy(tiny_model, "flowers")
    for source in ("flowers", pathlib.Path("flowers"), "./flowers/"):
        found = resolve(source)
        assert found.path == pathlib.Path("flowers")
        assert (found.name, found.preset, found.card) == ("flowers", None, None)
        assert found.tried == ("flowers",)


def test_the_highest_version_counts(tiny_model):
    copy(tiny_model, "flowers/2", "flowers/10", "flowers/latest", "flowers/011")
    assert resolve("flowers").path == pathlib.Path("flowers/10")
    assert resolve("flowers").name == "flowers"
    assert resolve("flowers/2").path == pathlib.Path("flowers/2")
    assert resolve("flowers/2").name == "flowers"


def test_a_folder_comes_before_the_shelf_before_the_catalog(
    tiny_model, tmp_path, monkeypatch
):
    copy(tiny_model, "saved_models/vgg16/3")
    found = resolve("vgg16")
    assert found.path == pathlib.Path("saved_models/vgg16/3")
    assert found.tried == ("vgg16", "saved_models/vgg16")
    copy(tiny_model, "vgg16")
    assert resolve("vgg16").path == pathlib.Path("vgg16")

    copy(tiny_model, str(tmp_path / "shelf/roses/1"))
    monkeypatch.setenv("TLKIT_SAVED_MODELS", str(tmp_path / "shelf"))
    assert resolve("roses").path == tmp_path / "shelf" / "roses" / "1"
    shutil.rmtree("vgg16")
    assert resolve("vgg16").preset == "vgg_16_imagenet"


def test_a_folder_brings_its_card(tiny_model):
    copy(tiny_model, "x/1")
    card = Card(name="roses", kind="image", image_size=96, pixels="caffe", tried=True)
    write_card(pathlib.Path("x/1"), card)
    assert resolve("x").card == card
    assert resolve("x").name == "roses"
    for given, path in (("./pre", "x/1/pre"), ("../pre", "x/pre")):
        write_card(pathlib.Path("x/1"), dataclasses.replace(card, preprocessor=given))
        full = str(pathlib.Path(path).absolute())
        assert resolve("x").card.preprocessor == full
    pathlib.Path("x/1/assets.extra/tlkit.json").write_text("{", "utf-8")
    assert read_card(pathlib.Path("x/1")) is None
    assert resolve("x").name == "x"


def test_a_card_survives_json_and_fields_of_later_versions():
    card = CATALOG["resnet_v2_50"]
    assert Card.from_json(card.to_json()) == card
    assert Card.from_json('{"name": "a", "kind": "text", "colour": 3}') == Card(
        name="a", kind="text"
    )
    with pytest.raises(ValueError, match="name and a kind|name and kind"):
        Card.from_json("[]")


def test_presets():
    assert resolve("preset://bert_tiny_en_uncased").preset == "bert_tiny_en_uncased"
    handle = "kaggle://keras/vgg/keras/vgg_16_imagenet/3"
    assert resolve(handle).preset == handle
    assert resolve(handle).name == "vgg_16_imagenet"
    found = resolve("vgg19")
    assert found.preset == "vgg_19_imagenet"
    assert found.card == CATALOG["vgg19"]
    pathlib.Path("hugging").mkdir()
    pathlib.Path("hugging/config.json").write_text("{}", "utf-8")
    assert resolve("hugging").preset == "hugging"


def test_an_unknown_name_gets_near_ones(tiny_model):
    copy(tiny_model, "saved_models/bert_en_uncased_mine/1")
    with pytest.raises(SourceError) as info:
        resolve("bert_en_uncase")
    message = str(info.value)
    assert "Tried: the folder bert_en_uncase, the shelf saved_models" in message
    near = message.split("Did you mean: ")[1].split("?")[0].split(", ")
    assert near[0] == "bert_en_uncased"
    assert "bert_en_uncased_mine" in near


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("", "The source is empty"),
        ("s3://bucket/model", "No source begins with s3://"),
        ("google/bit/tensorFlow2/m-r50x1/1", "type kaggle://google/bit/"),
        ("tfhub.dev/google/bit/m-r50x1/1", "Type https://tfhub.dev/google/bit/"),
    ],
)
def test_a_source_of_no_form(source, said):
    with pytest.raises(SourceError, match=said):
        resolve(source)


def test_a_file():
    pathlib.Path("model.keras").write_bytes(b"")
    with pytest.raises(SourceError, match="keras.saving.load_model"):
        resolve("model.keras")
    pathlib.Path("model.zip").write_bytes(b"")
    with pytest.raises(SourceError, match="unpack it first"):
        resolve("model.zip")
    pathlib.Path("model.tar.gz").write_bytes(b"")
    with pytest.raises(SourceError, match="damaged, or no archive of a SavedModel"):
        resolve("model.tar.gz")


def test_a_name_in_the_catalog_tries_every_address(monkeypatch):
    # Port 9 of loopback answers nobody: the real addresses are never reached.
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(SourceError) as info:
        resolve("small_bert_L-2_H-128", verbose=0)
    message = str(info.value)
    kaggle = "https://www.kaggle.com/models/tensorflow/bert/TensorFlow2/"
    hub = "https://tfhub.dev/tensorflow/small_bert/"
    assert message.index(f"{kaggle}bert-en-uncased-l-2-h-128-a-2/2:") < message.index(
        f"{hub}bert_en_uncased_L-2_H-128_A-2/2:"
    )
    assert message.count("no connection") == 2
    assert message.count("give its folder instead") == 1
