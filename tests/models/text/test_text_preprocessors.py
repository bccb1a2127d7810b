"""Preprocessors that are SavedModels: pairs, long texts and windows."""

import pytest
import tensorflow as tf

from tlkit.errors import EncoderError
from tlkit.models.text.packer import Packing
from tlkit.models.text.text_preprocessors import SavedPreprocessor

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CLS, SEP = 2, 3
IDS, MASK, TYPES = "input_word_ids", "input_mask", "input_type_ids"


class _Published(tf.Module):
    """A preprocessor as TF Hub has them: letters become ids, packed by TF Text."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        return self.bert_pack_inputs([self.tokenize(texts)], tf.constant(128))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, texts):
        letters = tf.strings.unicode_decode(texts, "UTF-8")
        words = tf.RaggedTensor.from_row_lengths(
            letters.values, tf.ones_like(letters.values)
        )
        return letters.with_values(words.with_row_splits_dtype(tf.int64))

    @tf.function
    def bert_pack_inputs(self, segments, seq_length):
        import tensorflow_text

        flat = [s.merge_dims(1, -1) if s.shape.rank > 2 else s for s in segments]
        trimmer = tensorflow_text.RoundRobinTrimmer(seq_length - 1 - len(segments))
        ids, types = tensorflow_text.combine_segments(trimmer.trim(flat), CLS, SEP)
        shape = tf.cast(tf.stack([-1, seq_length]), tf.int64)
        mask = tf.ones_like(ids).to_tensor(0, shape=shape)
        ids, types = ids.to_tensor(9, shape=shape), types.to_tensor(0, shape=shape)
        return {IDS: ids, MASK: mask, TYPES: types}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    module = _Published()
    for rank in (2, 3):
        for count in (1, 2):
            module.bert_pack_inputs.get_concrete_function(
                [tf.RaggedTensorSpec([None] * rank, tf.int32)] * count,
                tf.TensorSpec([], tf.int32),
            )
    folder = tmp_path_factory.mktemp("published") / "1"
    tf.saved_model.save(module, str(folder))
    return folder


@pytest.mark.parametrize("truncation", ["head", "tail", "head+tail"])
def test_published_preprocessors_cut_texts(published, truncation):
    preprocess = SavedPreprocessor(published, Packing(10, truncation))
    rows = preprocess.tokenize(tf.constant([LETTERS, "ab", ""]))
    kept = {"head": "abcdefgh", "tail": "stuvwxyz", "head+tail": "abuvwxyz"}
    expected = [[CLS, *map(ord, t), SEP] for t in (kept[truncation], "ab", "")]
    assert rows[IDS].to_list() == expected
    assert preprocess(tf.constant(["a"]))[IDS].numpy().tolist() == [
        [CLS, ord("a"), SEP, *[9] * 7]
    ]


def test_published_preprocessors_pack_pairs_and_windows(published):
    preprocess = SavedPreprocessor(published, Packing(9, pairs=True))
    rows = preprocess.tokenize(tf.constant([["abcdef", "xy"], ["", "x"]]))
    first = [CLS, *map(ord, "abcd"), SEP, *map(ord, "xy"), SEP]
    assert rows[IDS].to_list() == [first, [CLS, SEP, ord("x"), SEP]]
    assert rows[TYPES].to_list() == [[0] * 6 + [1] * 3, [0, 0, 1, 1]]
    preprocess = SavedPreprocessor(published, Packing(5, windows=3, overlap=1))
    rows = preprocess.tokenize(tf.constant(["abcdef", "a"]))
    windows = [
        token for w in ("abc", "cde", "ef") for token in (CLS, *map(ord, w), SEP)
    ]
    assert rows[IDS].to_list() == [windows, [CLS, ord("a"), SEP]]


class _Plain(tf.Module):
    """One that only packs single texts, as it likes."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        return {IDS: tf.strings.unicode_decode(texts, "UTF-8").to_tensor(0)}


def test_a_preprocessor_that_does_not_pack(tmp_path):
    tf.saved_model.save(_Plain(), str(tmp_path / "1"))
    preprocess = SavedPreprocessor(tmp_path / "1", Packing(8))
    assert preprocess.tokenize(tf.constant(["a"])) is None  # nothing says where it ends
    assert preprocess(tf.constant(["ab", "c"]))[IDS].numpy().tolist() == [
        [ord("a"), ord("b")],
        [ord("c"), 0],
    ]
    for options in ({"pairs": True}, {"truncation": "tail"}, {"windows": 2}):
        with pytest.raises(EncoderError, match="Leave pairs, truncation and windows"):
            SavedPreprocessor(tmp_path / "1", Packing(8, **options))
