"""Pairs of texts, long texts and windows, token by token."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_text_encoder
from tlkit.errors import DataError, EncoderError
from tlkit.models import preprocessing
from tlkit.models.text.packer import Packing
from tlkit.models.text.text_preprocessors import (
    WordPiecePreprocessor,
    _word_piece_tokenizer,
)
from tlkit.models.text.truncation import truncate_pairs

LETTERS = "abcdefghijklmnopqrstuvwxyz"
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "##z", *LETTERS, "。", "!", "水")
UNK, CLS, SEP = 1, 2, 3
IDS, MASK, TYPES = "input_word_ids", "input_mask", "input_type_ids"


def preprocessor(length=16, lower_case=True, **options):
    return WordPiecePreprocessor(PIECES, lower_case, Packing(length, **options))


def ids(letters):
    return [PIECES.index(letter) for letter in letters]


def spaced(letters):
    return " ".join(letters)


# === Rows ===


def test_rows_have_no_padding():
    rows = preprocessor().tokenize(tf.constant(["a bz", "", "☃ ☃☃"]))
    z = PIECES.index("##z")
    expected = [[CLS, *ids("ab"), z, SEP], [CLS, SEP], [CLS, UNK, UNK, SEP]]
    assert rows[IDS].to_list() == expected
    assert rows[MASK].to_list() == [[1] * 5, [1] * 2, [1] * 4]
    assert rows[TYPES].to_list() == [[0] * 5, [0] * 2, [0] * 4]
    assert {row.dtype for row in rows.values()} == {tf.int32}


@pytest.mark.parametrize(
    ("length", "windows", "lengths"),
    [
        (128, 1, (16, 32, 48, 64, 80, 96, 112, 128)),
        (512, 1, (64, 128, 192, 256, 320, 384, 448, 512)),
        (100, 1, (16, 32, 48, 64, 80, 96, 100)),
        (16, 1, (16,)),
        (10, 1, (10,)),
        (24, 3, (16, 24, 48, 72)),
    ],
)
def test_padded_lengths(length, windows, lengths):
    packing = Packing(length, windows=windows)
    assert packing.lengths == lengths
    for longest in (0, 2, 10, 16, 17, 24, 25, 96, 97, 1000):
        expected = next((x for x in lengths if x >= longest), lengths[-1])
        assert packing.padded_length(longest) == expected
        assert int(packing.padded_length(tf.constant(longest))) == expected
    fixed = dataclasses.replace(packing, fixed_length=True)
    assert fixed.lengths == (length * windows,)
    assert fixed.padded_length(1) == length * windows


@pytest.mark.parametrize("fixed", [False, True])
def test_rows_and_padding_make_the_inputs(fixed):
    texts = tf.constant(["a b c", "", spaced(LETTERS), "a! b"])
    preprocess = preprocessor(64, fixed_length=fixed)
    rows = preprocess.tokenize(texts)
    longest = int(tf.reduce_max(rows[IDS].row_lengths()))
    assert longest == 28
    tokens = preprocess.padded_length(longest)
    assert tokens == (64 if fixed else 32)
    padded, called = preprocess.pad(rows, tokens), preprocess(texts)
    for name in (IDS, MASK, TYPES):
        np.testing.assert_array_equal(padded[name], called[name])
    # One by one they are the same rows.
    for number, text in enumerate(texts):
        one = preprocess.tokenize(text[tf.newaxis])
        assert one[IDS].to_list()[0] == rows[IDS].to_list()[number]


def test_rows_are_padded_with_the_vocabularys_own_padding():
    pieces = ("a", "[UNK]", "[CLS]", "[SEP]", "[PAD]")
    preprocess = WordPiecePreprocessor(pieces, True, Packing(6))
    inputs = preprocess(tf.constant(["a"]))
    assert inputs[IDS].numpy().tolist() == [[2, 0, 3, 4, 4, 4]]
    assert inputs[MASK].numpy().tolist() == [[1, 1, 1, 0, 0, 0]]


# === Truncation ===


@pytest.mark.parametrize(
    ("truncation", "kept"),
    [("head", "abcdefgh"), ("tail", "stuvwxyz"), ("head+tail", "abuvwxyz")],
)
def test_long_texts_are_truncated(truncation, kept):
    preprocess = preprocessor(10, truncation=truncation)
    texts = [spaced(LETTERS), "a b c", spaced(LETTERS[:8]), ""]
    rows = preprocess.tokenize(tf.constant(texts))[IDS].to_list()
    expected = [kept, "abc", LETTERS[:8], ""]
    assert rows == [[CLS, *ids(letters), SEP] for letters in expected]


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
@pytest.mark.parametrize("lower_case", [True, False])
def test_reading_only_the_ends_changes_nothing(truncation, lower_case):
    """Texts of all kinds, with parts that make no tokens and bytes that are no text."""
    random = np.random.default_rng(0)
    parts = [b"a", b"bz", b"zz", b" ", b"  ", b"\n", b"\t", b"\r", b"!", b"\0", b"c"]
    parts += [
        "水",
        "。",
        "，",
        "é",
        "e\u0301",
        "\u0301",
        "\u00a0",
        "\u200b",
        "İ",
        "\u3000",
    ]
    parts += [b"\xe2\x82", b"\xff", b"\xc3", b"\xf0\x9f\x92", "💧", "☃", b" " * 300]
    parts += [b"q" * 150, b" d", b"e ", "\ufeff", "가", "ﬁ", "\u0085"]
    parts = [part if isinstance(part, bytes) else part.encode() for part in parts]
    texts = []
    for _ in range(150):
        some = [parts[i] for i in random.choice(len(parts), random.integers(1, 12))]
        many = random.choice(len(some), random.integers(1, 900))
        texts.append(b"".join(some[i] for i in many))
    texts = tf.constant(texts)
    preprocess = preprocessor(10, lower_case, truncation=truncation)
    tokenize = _word_piece_tokenizer(PIECES, lower_case).tokenize
    whole, _ = preprocess.packing.tokens(tokenize, texts, parts=False)
    ends, _ = preprocess.packing.tokens(tokenize, texts)
    assert ends[0].to_list() == whole[0].to_list()
    assert np.sum(tf.strings.length(texts).numpy() > 256) > 75


def long_texts():
    blanks, letters = b" " * 500_000, b"q" * 1_000_000
    return {
        "words": b"a b c d " * 125_000,
        "blanks": blanks + b"a" + blanks + b"b",
        "one word": letters,
        "accents": "e\u0301".encode() * 330_000,
        "water": "水".encode() * 333_333,
        "no text": b"\xff\xfe" * 500_000,
        "nothing": b"\0" * 1_000_000,
    }


@pytest.mark.parametrize("name", list(long_texts()))
@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
def test_a_text_of_a_million_characters(name, truncation):
    text = long_texts()[name]
    preprocess = preprocessor(16, truncation=truncation)
    row = preprocess.tokenize(tf.constant([text, b"a"]))[IDS].to_list()
    head, tail = ids("abcd" * 4)[:14], ids("abcd" * 4)[-14:]
    words = {"head": head, "tail": tail, "head+tail": head[:3] + tail[-11:]}
    expected = {
        "words": words[truncation],
        "blanks": ids("ab"),
        "one word": [UNK],
        "accents": [UNK],
        "water": ids("水" * 14),
    }
    if name in expected:
        assert row[0] == [CLS, *expected[name], SEP]
    assert len(row[0]) <= 16
    assert row[1] == [CLS, *ids("a"), SEP]


# === Pairs ===


def packed(first, second):
    row = [CLS, *ids(first), SEP, *ids(second), SEP]
    return row, [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_pairs_are_packed_as_bert_does():
    pairs = [("a b", "c d e"), ("", "c"), ("a", ""), ("", "")]
    rows = preprocessor(16, pairs=True).tokenize(tf.constant(pairs))
    for number, (first, second) in enumerate(pairs):
        row, types = packed(first.split(), second.split())
        assert rows[IDS].to_list()[number] == row
        assert rows[TYPES].to_list()[number] == types
        assert rows[MASK].to_list()[number] == [1] * len(row)


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [
        ((20, 20), (4, 3)),
        ((20, 2), (5, 2)),
        ((2, 20), (2, 5)),
        ((4, 3), (4, 3)),
        ((3, 4), (3, 4)),
        ((20, 0), (7, 0)),
        ((0, 20), (0, 7)),
        ((7, 1), (6, 1)),
    ],
)
def test_pairs_are_truncated_together(sizes, kept):
    texts = [LETTERS[: sizes[0]], LETTERS[::-1][: sizes[1]]]
    pair = tf.constant([[spaced(text) for text in texts]])
    for truncation in ("head", "tail", "head+tail"):
        preprocess = preprocessor(10, pairs=True, truncation=truncation)
        rows = preprocess.tokenize(pair)
        found = []
        for text, size in zip(texts, kept, strict=True):
            first = {"head": size, "tail": 0, "head+tail": size // 4}[truncation]
            last = size - first
            short = len(text) <= size
            found.append(text if short else text[:first] + text[len(text) - last :])
        row, types = packed(*found)
        assert rows[IDS].to_list() == [row]
        assert rows[TYPES].to_list() == [types]


def test_pairs_are_truncated_as_tensorflow_text_does():
    import tensorflow_text

    random = np.random.default_rng(0)
    tokens = [
        tf.ragged.constant([[5] * random.integers(0, 20) for _ in range(200)], tf.int32)
        for _ in range(2)
    ]
    for count in (0, 1, 7, 12):
        ours = truncate_pairs(*tokens, count, "head")
        theirs = tensorflow_text.RoundRobinTrimmer(count).trim(tokens)
        for our, their in zip(ours, theirs, strict=True):
            assert (
                our.row_lengths().numpy().tolist()
                == their.row_lengths().numpy().tolist()
            )


@pytest.mark.parametrize(
    ("pairs", "raws"), [(False, [["a", "b"]]), (True, ["a"]), (True, [["a", "b", "c"]])]
)
def test_pairs_and_texts_are_not_mixed_up(pairs, raws):
    with pytest.raises(DataError, match=r"takes (pairs of )?texts \[n"):
        preprocessor(16, pairs=pairs)(tf.constant(raws))


# === Windows ===


@pytest.mark.parametrize(
    ("letters", "windows"),
    [
        ("", [""]),
        ("abcd", ["abcd"]),
        ("abcde", ["abcd", "de"]),
        ("abcdefg", ["abcd", "defg"]),
        ("abcdefgh", ["abcd", "defg", "gh"]),
        ("abcdefghij", ["abcd", "defg", "ghij"]),
        (LETTERS, ["abcd", "defg", "ghij"]),
    ],
)
def test_long_texts_in_windows(letters, windows):
    preprocess = preprocessor(6, windows=3, overlap=1)
    rows = preprocess.tokenize(tf.constant([spaced(letters), "a"]))
    expected = [token for w in windows for token in (CLS, *ids(w), SEP)]
    assert rows[IDS].to_list() == [expected, [CLS, *ids("a"), SEP]]
    assert rows[MASK].to_list()[0] == [1] * len(expected)
    assert rows[TYPES].to_list()[0] == [0] * len(expected)
    inputs = preprocess(tf.constant([spaced(letters), "a"]))
    assert inputs[IDS].shape[1] == 6 * len(windows)


def test_windows_of_the_end_of_a_text():
    preprocess = preprocessor(6, windows=2, truncation="tail")
    row = preprocess.tokenize(tf.constant([spaced(LETTERS)]))[IDS].to_list()[0]
    assert row == [CLS, *ids("stuv"), SEP, CLS, *ids("wxyz"), SEP]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_text_encoder(tmp_path_factory.mktemp("encoder") / "1")


def random_head(model):
    """A head of zeros would give the same for every text."""
    kernel = model.get_layer("head").dense.kernel
    kernel.assign(np.random.default_rng(3).normal(size=kernel.shape))
    return model


@pytest.mark.parametrize("pooling", ["mean", "pooled", "both"])
def test_a_models_logits_are_the_mean_over_windows(folder, pooling):
    options = {"length": 6, "pooling": pooling}
    model = random_head(
        tlkit.text_classifier(folder, 3, windows=4, overlap=1, **options)
    )
    single = tlkit.text_classifier(folder, 3, **options)
    single.get_layer("head").set_weights(model.get_layer("head").get_weights())
    text = "good bad film the good good bad bad film film".split()
    windows = [text[0:4], text[3:7], text[6:10]]
    raws = tf.constant([" ".join(words) for words in windows])
    parts = single(preprocessing(single)(raws), training=False).numpy()
    expected = [parts.mean(axis=0), parts[0], single_logits(single, "")]
    raws = tf.constant([" ".join(text), " ".join(windows[0]), ""])
    whole = model(preprocessing(model)(raws), training=False)
    np.testing.assert_allclose(whole, expected, rtol=1e-5, atol=1e-6)
    for raw, logits in zip(raws, expected, strict=True):
        inputs = preprocessing(model)(raw[tf.newaxis])
        np.testing.assert_allclose(model(inputs)[0], logits, rtol=1e-5, atol=1e-6)
    fixed = preprocessing(model, fixed_length=True)(raws)
    assert fixed[IDS].shape == (3, 24)
    np.testing.assert_allclose(model(fixed), expected, rtol=1e-5, atol=1e-6)


def single_logits(model, text):
    return model(preprocessing(model)(tf.constant([text])))[0].numpy()


def test_a_saved_model_knows_how_texts_are_packed(folder, tmp_path):
    options = {"length": 8, "truncation": "head+tail", "windows": 3, "overlap": 2}
    model = random_head(tlkit.text_classifier(folder, 2, **options))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    packing = preprocessing(loaded).packing
    assert packing == Packing(8, "head+tail", windows=3, overlap=2)
    texts = tf.constant(["good " * 40 + "bad " * 40, "bad"])
    expected = model(preprocessing(model)(texts), training=False)
    found = loaded(preprocessing(loaded)(texts), training=False)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncation": "middle"}, r"one of head, tail, head\+tail.*'middle'"),
        ({"length": 2}, "length must be 3 or more; got 2"),
        ({"length": 4, "pairs": True}, "length must be 5 or more; got 4"),
        ({"length": 12.0}, "length must be 3 or more; got 12.0"),
        ({"windows": 0}, "windows must be 1 or more; got 0"),
        ({"windows": 2, "pairs": True}, "windows must be 1 for pairs of texts; got 2"),
        ({"length": 8, "overlap": 6}, "overlap must be 0 to 5; got 6"),
    ],
)
def test_options_out_of_range_raise_an_error(folder, options, message):
    with pytest.raises(EncoderError, match=message):
        tlkit.text_classifier(folder, 2, **options)
