"""Cards of text encoders, and of the preprocessors that tokenize for them.

Tested in tests/sources/catalog/test_catalog.py.
"""

from collections.abc import Iterator

from .cards import Card

_UNCASED = "bert_en_uncased_preprocess"
_BASE = "L-12_H-768_A-12"
_LARGE = "L-24_H-1024_A-16"


def text_cards() -> Iterator[Card]:
    """Yields the cards, grouped by family."""
    yield from _berts()
    yield from _small_berts()
    yield from _relatives_of_bert()
    yield from _sentence_encoders()
    yield from _preprocessors()


def _berts() -> Iterator[Card]:
    for short, size in (("", _BASE), ("_large", _LARGE)):
        # Without "bert-": on Kaggle "bert-en-uncased-…" are the small_bert models.
        yield _text(
            f"bert_en_uncased{short}",
            tfhub=f"tensorflow/bert_en_uncased_{size}/4",
            kaggle=f"tensorflow/bert/tensorFlow2/{_slug(f'en_uncased_{size}')}/4",
            preprocessor=_UNCASED,
        )
    for short, data, size in (
        ("bert_en_cased", "en_cased", _BASE),
        ("bert_en_cased_large", "en_cased", _LARGE),
        ("bert_en_wwm_cased", "en_wwm_cased", _LARGE),
        ("bert_en_wwm_uncased", "en_wwm_uncased", _LARGE),
        ("bert_multi_cased", "multi_cased", _BASE),
        ("bert_zh", "zh", _BASE),
    ):
        yield _text(
            short,
            tfhub=f"tensorflow/bert_{data}_{size}/4",
            preprocessor=f"bert_{data.replace('wwm_', '')}_preprocess",
        )


def _small_berts() -> Iterator[Card]:
    for layers in (2, 4, 6, 8, 10, 12):
        for width in (128, 256, 512, 768):
            size = f"L-{layers}_H-{width}"
            full = f"bert_en_uncased_{size}_A-{width // 64}"
            yield _text(
                f"small_bert_{size}",
                tfhub=f"tensorflow/small_bert/{full}/2",
                kaggle=f"tensorflow/bert/tensorFlow2/{_slug(full)}/2",
                preprocessor=_UNCASED,
            )


def _relatives_of_bert() -> Iterator[Card]:
    for size in ("base", "large", "xlarge", "xxlarge"):
        yield _text(
            f"albert_en_{size}",
            tfhub=f"tensorflow/albert_en_{size}/3",
            preprocessor="albert_en_preprocess",
            note="all layers share their variables",
        )
    untrained = "its pooler is an untrained identity: mean over tokens does better"
    for size in ("small", "base", "large"):
        yield _text(
            f"electra_{size}",
            tfhub=f"google/electra_{size}/2",
            preprocessor=_UNCASED,
            note=untrained,
        )
    yield _text(
        "mobilebert_en_uncased",
        tfhub="tensorflow/mobilebert_en_uncased_L-24_H-128_B-512_A-4_F-4_OPT/1",
        preprocessor=_UNCASED,
    )
    yield _text(
        "experts_bert_pubmed",
        tfhub="google/experts/bert/pubmed/2",
        kaggle="google/experts-bert/tensorFlow2/pubmed/2",
        preprocessor=_UNCASED,
        note=untrained,
    )
    for task in ("", "mnli", "qnli", "qqp", "squad2", "sst2"):
        yield _text(
            "experts_bert_wiki_books" + (task and f"_{task}"),
            tfhub=f"google/experts/bert/wiki_books{task and f'/{task}'}/2",
            preprocessor=_UNCASED,
            note=untrained,
        )
    yield _text(
        "labse",
        tfhub="google/LaBSE/2",
        kaggle="google/labse/tensorFlow2/labse/2",
        preprocessor="cmlm_multilingual_preprocess",
        note="109 languages; normalize its `default` output",
    )


def _sentence_encoders() -> Iterator[Card]:
    family = "universal-sentence-encoder"
    for short, tfhub, kaggle in (
        ("", f"{family}/4", family),
        ("_large", f"{family}-large/5", "large"),
        ("_multilingual", f"{family}-multilingual/3", "multilingual"),
        ("_multilingual_large", f"{family}-multilingual-large/3", "multilingual-large"),
    ):
        yield _text(
            f"universal_sentence_encoder{short}",
            tfhub=f"google/{tfhub}",
            kaggle=f"google/{family}/tensorFlow2/{kaggle}/2",
            note="takes raw strings",
        )
    yield _text(
        "universal_sentence_encoder_cmlm_en_base",
        tfhub=f"google/{family}-cmlm/en-base/1",
        kaggle=f"google/{family}/tensorFlow2/cmlm-en-base/1",
        preprocessor=_UNCASED,
    )


def _preprocessors() -> Iterator[Card]:
    yield _preprocessor(
        _UNCASED,
        tfhub=f"tensorflow/{_UNCASED}/3",
        kaggle="tensorflow/bert/tensorFlow2/en-uncased-preprocess/3",
    )
    for name in (
        "bert_en_cased_preprocess",
        "bert_multi_cased_preprocess",
        "bert_zh_preprocess",
        "albert_en_preprocess",
    ):
        yield _preprocessor(name, tfhub=f"tensorflow/{name}/3")
    family = "google/universal-sentence-encoder"
    yield _preprocessor(
        "cmlm_multilingual_preprocess",
        tfhub=f"{family}-cmlm/multilingual-preprocess/2",
        kaggle=f"{family}/tensorFlow2/cmlm-multilingual-preprocess/2",
    )


def _text(name: str, **facts) -> Card:
    return Card(name=name, kind="text", licence="Apache-2.0", **facts)


def _preprocessor(name: str, **facts) -> Card:
    return Card(name=name, kind="preprocessor", licence="Apache-2.0", **facts)


def _slug(name: str) -> str:
    return name.lower().replace("_", "-")
