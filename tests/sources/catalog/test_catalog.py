from __future__ import annotations

import pytest

from tlkit.sources import CATALOG, catalog_names
from tlkit.sources.resolve import card_urls, resolve

PIXELS = {"unit", "symmetric", "byte", "caffe", "torch", "none"}


@pytest.mark.parametrize("name", CATALOG)
def test_every_card_is_whole(name):
    card = CATALOG[name]
    assert card.name == name
    assert card.kind in ("image", "text", "preprocessor")
    assert card.pixels in PIXELS
    assert (card.pixels != "none") == (card.kind == "image")
    assert (card.image_size is not None) == (card.kind == "image")
    assert card.preprocessor is None or card.preprocessor in CATALOG
    assert card_urls(card) or card.preset
    assert not card.tried


@pytest.mark.parametrize(
    ("name", "kaggle", "tfhub"),
    [
        (
            "resnet_v1_101",
            "google/resnet-v1/tensorFlow2/101-feature-vector/2",
            "google/imagenet/resnet_v1_101/feature_vector/5",
        ),
        # Versions on Kaggle count what was there in TF2's format.
        (
            "mobilenet_v3_large_075_224",
            "google/mobilenet-v3/tensorFlow2/large-075-224-feature-vector/1",
            "google/imagenet/mobilenet_v3_large_075_224/feature_vector/5",
        ),
        (
            "efficientnet_v2_b0",
            "google/efficientnet-v2/tensorFlow2/imagenet1k-b0-feature-vector/2",
            "google/imagenet/efficientnet_v2_imagenet1k_b0/feature_vector/2",
        ),
        (
            "efficientnet_v2_imagenet21k_b0",
            "google/efficientnet-v2/tensorFlow2/imagenet21k-b0-feature-vector/1",
            "google/imagenet/efficientnet_v2_imagenet21k_b0/feature_vector/2",
        ),
        # One "bert-" apart, and another training.
        (
            "bert_en_uncased",
            "tensorflow/bert/tensorFlow2/en-uncased-l-12-h-768-a-12/4",
            "tensorflow/bert_en_uncased_L-12_H-768_A-12/4",
        ),
        (
            "small_bert_L-12_H-768",
            "tensorflow/bert/tensorFlow2/bert-en-uncased-l-12-h-768-a-12/2",
            "tensorflow/small_bert/bert_en_uncased_L-12_H-768_A-12/2",
        ),
        ("albert_en_base", None, "tensorflow/albert_en_base/3"),
        ("vgg16", None, None),
        (
            "vit_b16",
            "spsayakpaul/vision-transformer/tensorFlow2/vit-b16-fe/1",
            "sayakpaul/vit_b16_fe/1",
        ),
    ],
)
def test_handles(name, kaggle, tfhub):
    assert CATALOG[name].kaggle == kaggle
    assert CATALOG[name].tfhub == tfhub


def test_families_are_complete():
    small = [name for name in CATALOG if name.startswith("small_bert_")]
    assert len(small) == 24
    assert {CATALOG[f"resnet_v{v}_{d}"].image_size for v in (1, 2) for d in (50, 152)}
    assert CATALOG["inception_v3"].image_size == 299
    assert CATALOG["efficientnet_v2_imagenet21k_ft1k_xl"].image_size == 512
    assert "efficientnet_v2_xl" not in CATALOG
    assert "mobilenet_v2_130_192" not in CATALOG
    assert CATALOG["bert_multi_cased"].preprocessor == "bert_multi_cased_preprocess"
    assert CATALOG["bert_en_wwm_cased"].preprocessor == "bert_en_cased_preprocess"


def test_names_by_kind():
    assert set(catalog_names()) == set(CATALOG)
    assert "vgg16" in catalog_names("image")
    assert "electra_small" in catalog_names("text")
    assert catalog_names("preprocessor")[0] == "bert_en_uncased_preprocess"
    assert len(set(catalog_names())) == len(catalog_names())


def test_an_address_of_any_version_finds_its_card():
    from tlkit.sources.resolve import _card_of

    for address in (
        "tfhub.dev/google/imagenet/resnet_v2_50/feature_vector/4",
        "www.kaggle.com/models/google/resnet-v2/TensorFlow2/50-feature-vector/2",
        "www.kaggle.com/models/google/resnet-v2/tensorFlow2/50-feature-vector",
    ):
        assert _card_of(address) is CATALOG["resnet_v2_50"]
    assert _card_of("tfhub.dev/google/imagenet/resnet_v2_50/classification/5") is None
    assert resolve.__doc__
