"""Raw examples become the same inputs wherever they come from."""

import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_text_encoder
from tlkit.errors import EncoderError
from tlkit.models.preprocessors import ImagePreprocessor, preprocessing
from tlkit.models.text.packer import Packing
from tlkit.models.text.text_preprocessors import (
    SavedPreprocessor,
    WordPiecePreprocessor,
)

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "hello", "world", "##s", "cafe", ",", "!"]
CLS, SEP, HELLO, WORLD, S, CAFE = 2, 3, 4, 5, 6, 7


def word_pieces(length=16, **changes):
    return WordPiecePreprocessor(tuple(PIECES), True, Packing(length, **changes))


def test_texts_become_ids_masks_and_types():
    inputs = word_pieces()(tf.constant(["Hello worlds", "Café", ""]))
    assert sorted(inputs) == ["input_mask", "input_type_ids", "input_word_ids"]
    assert all(tensor.dtype == tf.int32 for tensor in inputs.values())
    ids = inputs["input_word_ids"].numpy()
    assert ids.shape == (3, 16)
    assert ids[0, :6].tolist() == [CLS, HELLO, WORLD, S, SEP, 0]
    assert ids[1, :4].tolist() == [CLS, CAFE, SEP, 0]
    assert ids[2, :3].tolist() == [CLS, SEP, 0]
    assert inputs["input_mask"].numpy().sum(axis=1).tolist() == [5, 3, 2]
    assert not inputs["input_type_ids"].numpy().any()


def test_long_texts_are_cut_and_keep_their_separator():
    ids = word_pieces(8)(tf.constant(["hello " * 50]))["input_word_ids"].numpy()
    assert ids.tolist() == [[CLS] + [HELLO] * 6 + [SEP]]


@pytest.mark.parametrize("words, tokens", [(3, 16), (14, 16), (15, 32), (200, 64)])
def test_batches_are_padded_to_a_multiple_of_16(words, tokens):
    ids = word_pieces(64)(tf.constant(["hello " * words]))["input_word_ids"]
    assert ids.shape[1] == tokens


def test_texts_are_split_alike_in_a_dataset():
    texts = tf.constant(["Hello worlds, CAFÉ!", "x"])
    preprocess = word_pieces()
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(2).map(preprocess)
    eager = preprocess(texts)
    for name, tensor in next(iter(dataset)).items():
        np.testing.assert_array_equal(tensor, eager[name])


def test_a_vocabulary_without_special_pieces_raises_an_error():
    with pytest.raises(EncoderError, match=r"no '\[CLS\]'"):
        WordPiecePreprocessor(("[UNK]", "hello"), True, Packing(16))(
            tf.constant(["hello"])
        )


def picture(height=40, width=30):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
    return pixels.astype(np.uint8)


def test_a_lossless_image_has_the_same_pixels():
    pixels = picture()
    image = ImagePreprocessor(40, 30)(tf.io.encode_png(pixels))
    assert image.dtype == tf.float32
    np.testing.assert_array_equal(image, pixels)


def test_images_are_resized_with_antialiasing():
    encoded = tf.io.encode_png(picture(200, 100))
    expected = tf.image.resize(
        tf.cast(tf.io.decode_image(encoded), tf.float32), (20, 10), antialias=True
    )
    image = ImagePreprocessor(20, 10)(encoded)
    np.testing.assert_allclose(image, expected, atol=1e-4)


def test_gray_images_and_arrays_get_three_channels():
    gray = picture()[..., 0]
    expected = np.repeat(gray[..., np.newaxis], 3, axis=-1)
    preprocess = ImagePreprocessor(40, 30)
    encoded = tf.io.encode_png(gray[..., np.newaxis])
    for raw in (encoded, tf.constant(gray), tf.constant(gray[..., np.newaxis])):
        np.testing.assert_array_equal(preprocess(raw), expected)


def test_a_batch_is_its_examples():
    encoded = [tf.io.encode_png(picture(h, 20)) for h in (10, 25, 40)]
    preprocess = ImagePreprocessor(16, 16)
    batch = preprocess.batch(tf.stack(encoded))
    for image, raw in zip(batch, encoded, strict=True):
        np.testing.assert_array_equal(image, preprocess(raw))


@pytest.mark.parametrize("words", [0, 3, 200])
def test_texts_can_all_be_padded_to_one_length(words):
    preprocess = word_pieces(64, fixed_length=True)
    texts = tf.constant(["hello " * words, "world"])
    inputs = preprocess(texts)
    for name, tensor in word_pieces(64)(texts).items():
        kept = tensor.shape[1]
        np.testing.assert_array_equal(inputs[name][:, :kept], tensor)
        assert not inputs[name][:, kept:].numpy().any()  # [PAD] is 0 here
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(2).map(preprocess)
    shapes = {tuple(spec.shape) for spec in dataset.element_spec.values()}
    assert shapes == {(None, 64)}


class _Letters(tf.Module):
    """A published preprocessor: letters as ids, padded to the longest text."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def __call__(self, texts):
        return self._pack(tf.strings.unicode_decode(texts, "UTF-8").to_tensor(0))

    def _pack(self, ids):
        mask = tf.cast(ids > 0, tf.int32)
        names = ("input_word_ids", "input_mask", "input_type_ids")
        return dict(zip(names, (ids, mask, tf.zeros_like(ids)), strict=True))


class _PackingLetters(_Letters):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def tokenize(self, texts):
        return tf.strings.unicode_decode(texts, "UTF-8")

    @tf.function
    def bert_pack_inputs(self, segments, seq_length):
        shape = tf.cast(tf.stack([-1, seq_length]), tf.int64)
        return self._pack(segments[0].to_tensor(0, shape=shape))


@pytest.mark.parametrize("make", [_Letters, _PackingLetters])
def test_published_preprocessors_give_one_length_too(tmp_path, make):
    module = make()
    if make is _PackingLetters:
        ragged = tf.RaggedTensorSpec([None, None], tf.int32)
        length = tf.TensorSpec([], tf.int32)
        module.bert_pack_inputs.get_concrete_function([ragged], length)
    tf.saved_model.save(module, str(tmp_path / "1"))
    preprocess = SavedPreprocessor(tmp_path / "1", Packing(6, fixed_length=True))
    for texts in (["ab", "c"], ["abcdefgh", ""]):
        dataset = tf.data.Dataset.from_tensors(tf.constant(texts)).map(preprocess)
        assert dataset.element_spec["input_mask"].shape.as_list() == [None, 6]
        ids = next(iter(dataset))["input_word_ids"].numpy()
        expected = [[ord(x) for x in text[:6].ljust(6, "\0")] for text in texts]
        np.testing.assert_array_equal(ids, expected)
    rows = preprocess.tokenize(tf.constant(["ab", "", "abcdefgh"]))
    expected = [[ord(x) for x in text] for text in ("ab", "", "abcdef")]
    assert rows["input_word_ids"].to_list() == expected
    longer = SavedPreprocessor(tmp_path / "1", Packing(40))
    assert longer(tf.constant(["ab"]))["input_mask"].numpy().tolist() == [
        [1, 1] + [0] * 14
    ]


def test_a_models_preprocessing_can_have_one_length(tmp_path):
    folder = write_text_encoder(tmp_path / "1")
    model = tlkit.text_classifier(folder, 2, length=24)
    texts = tf.constant(["good film"])
    for fixed, length in ((False, 16), (True, 24)):
        inputs = preprocessing(model, fixed_length=fixed)(texts)
        assert {tensor.shape[1] for tensor in inputs.values()} == {length}
