"""SavedModels that do more than compute are rejected unless they are trusted."""

import pathlib
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format
from tensorflow.core.protobuf import saved_model_pb2

import tlkit
from tests.encoders.forms import FORMS
from tests.tiny import write_text_encoder
from tlkit.encoders.saved_model.outside_ops import outside_ops
from tlkit.errors import EncoderError, SourceError
from tlkit.models.text.packer import Packing
from tlkit.models.text.text_preprocessors import SavedPreprocessor
from tlkit.sources.store.saved_model_check import parse_saved_model


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    """A file `evil` is written there."""
    monkeypatch.chdir(tmp_path)


class Encoder(tf.Module):
    """Multiplies by a weight, after something else was done with the inputs."""

    def __init__(self, extra=lambda x: x, **fields):
        super().__init__()
        self.kernel = tf.Variable([[2.0]], name="dense/kernel")
        self._extra = extra
        for name, value in fields.items():
            setattr(self, name, value)

    @tf.function(input_signature=[tf.TensorSpec([None, 1], tf.float32)])
    def __call__(self, x):
        return self._extra(x) @ self.kernel


def write(folder: pathlib.Path, extra=lambda x: x, **fields) -> pathlib.Path:
    tf.saved_model.save(Encoder(extra, **fields), str(folder))
    return folder


def before(x, op):
    with tf.control_dependencies([op]):
        return tf.identity(x)


def taking(x, value):
    """A number that depends on a string."""
    return x + tf.cast(tf.strings.length(value), tf.float32)


def _table_of_a_path(x):
    table = tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)
    return before(
        x,
        tf.raw_ops.InitializeTableFromTextFileV2(
            table_handle=table, filename="/etc/passwd", key_index=-2, value_index=-1
        ),
    )


def _through_functions(x):
    """The path is an argument, two calls away from where it stands."""

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def read(path):
        return tf.io.read_file(tf.identity(path))

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)])
    def outer(path):
        return read(path)

    return taking(x, outer("/etc/passwd"))


def _in_a_branch(x):
    path = tf.constant("/etc/passwd")
    read = lambda: tf.io.read_file(path)
    return taking(x, tf.cond(tf.reduce_sum(x) > 0, read, lambda: tf.constant("")))


def _by_a_data_set(make):
    def extra(x):
        data = make().map(tf.strings.length)
        total = data.reduce(tf.constant(0), lambda a, b: a + b)
        return x + tf.cast(total, tf.float32)

    return extra


def _summary(x):
    writer = tf.raw_ops.SummaryWriter()
    opened = tf.raw_ops.CreateSummaryFileWriter(
        writer=writer,
        logdir="evil",
        max_queue=1,
        flush_millis=1,
        filename_suffix="",
    )
    return before(x, opened)


def _decoded(x):
    _, values = tf.io.decode_proto(
        tf.strings.as_string(x[:, 0]), "a.B", ["c"], [tf.float32], "/etc/passwd"
    )
    return x + values[0][:, :1]


HARMFUL = {
    "WriteFile": lambda x: before(x, tf.io.write_file("evil", "x")),
    "ReadFile": lambda x: taking(x, tf.io.read_file("/etc/passwd")),
    "ReadFile of what comes in": lambda x: taking(
        x, tf.io.read_file(tf.strings.as_string(x[0, 0]))
    ),
    "ReadFile through functions": _through_functions,
    "ReadFile in a branch": _in_a_branch,
    "MatchingFiles": lambda x: (
        x + tf.cast(tf.size(tf.io.matching_files("/*")), x.dtype)
    ),
    "InitializeTableFromTextFileV2": _table_of_a_path,
    "PyFunc": lambda x: tf.ensure_shape(
        tf.numpy_function(lambda v: v, [x], tf.float32), [None, 1]
    ),
    "EagerPyFunc": lambda x: tf.ensure_shape(
        tf.py_function(lambda v: v, [x], tf.float32), [None, 1]
    ),
    "PrintV2": lambda x: before(
        x, tf.print(x, output_stream="file://evil") or tf.no_op()
    ),
    "TextLineDataset": _by_a_data_set(lambda: tf.data.TextLineDataset("/etc/passwd")),
    "TFRecordDataset": _by_a_data_set(lambda: tf.data.TFRecordDataset("/etc/passwd")),
    "SaveV2": lambda x: before(
        x,
        tf.raw_ops.SaveV2(
            prefix="evil", tensor_names=["x"], shape_and_slices=[""], tensors=[x]
        ),
    ),
    "RestoreV2": lambda x: (
        x
        + tf.raw_ops.RestoreV2(
            prefix="evil",
            tensor_names=["x"],
            shape_and_slices=[""],
            dtypes=[tf.float32],
        )[0]
    ),
    "CreateSummaryFileWriter": _summary,
    "DecodeProtoV2": _decoded,
    "DebugIdentityV2": lambda x: tf.raw_ops.DebugIdentityV2(
        input=x, debug_urls=["file://evil"]
    ),
    "ImmutableConst": lambda x: (
        x
        + tf.raw_ops.ImmutableConst(
            dtype=tf.float32, shape=[1], memory_region_name="/etc/passwd"
        )
    ),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_model_that_does_more_than_compute_is_rejected(name, tmp_path):
    source = write(tmp_path / "1", HARMFUL[name])
    kind = name.split()[0]
    with pytest.raises(SourceError, match="does more than compute") as info:
        tlkit.load_encoder(source)
    assert f"{kind} " in str(info.value)
    assert "trust=True" in str(info.value) and "--trust" in str(info.value)
    assert tlkit.inspect(source, trust=True, verbose=0).file_ops != ()
    assert not (tmp_path / "evil").exists()


HARMLESS = {
    "prints": lambda x: before(x, tf.print(x) or tf.no_op()),
    "prints to the log": lambda x: before(
        x, tf.print(x, output_stream=tf.compat.v1.logging.info) or tf.no_op()
    ),
    "checks": lambda x: tf.debugging.check_numerics(x, "no number"),
    "asserts": lambda x: before(x, tf.debugging.Assert(tf.size(x) >= 0, [x])),
    "shards names": lambda x: taking(
        x, tf.raw_ops.ShardedFilename(basename="a", shard=0, num_shards=1)
    ),
    "has data in memory": _by_a_data_set(
        lambda: tf.data.Dataset.from_tensor_slices(["a", "b"])
    ),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_model_is_accepted(name, tmp_path):
    encoder = tlkit.load_encoder(write(tmp_path / "1", HARMLESS[name]))
    assert encoder.facts.file_ops == ()
    assert encoder(tf.ones([1, 1])).shape == (1, 1)


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_accepted(written, name):
    found = outside_ops(parse_saved_model(written(name)))
    assert [op for op in found if not op.reads_own_asset] == []


# === Its own assets ===


def own_table(words: tf.saved_model.Asset) -> tf.lookup.StaticHashTable:
    return tf.lookup.StaticHashTable(
        tf.lookup.TextFileInitializer(
            words.asset_path,
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE),
            *(tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        ),
        default_value=-1,
    )


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("one\ntwo\n")
    return tf.saved_model.Asset(str(path))


def looked_up(table, words):
    index = lambda x: tf.cast(table.lookup(tf.constant("two")), x.dtype)
    return lambda x: taking(x, tf.io.read_file(words.asset_path)) + index(x)


def test_its_own_assets_may_be_read(tmp_path, words):
    table = own_table(words)
    source = write(tmp_path / "1", looked_up(table, words), words=words, table=table)
    pathlib.Path(words.asset_path.numpy().decode()).unlink()
    encoder = tlkit.load_encoder(source)
    assert encoder.facts.file_ops == ("InitializeTableFromTextFileV2", "ReadFile")
    assert encoder(tf.ones([1, 1])).numpy() == [[2 * (1 + 8 + 1)]]

    # Saved again by somebody who had loaded it: one function more in between.
    loaded = tf.saved_model.load(str(source))
    again = write(tmp_path / "2", lambda x: loaded(x), loaded=loaded)
    assert tlkit.load_encoder(again)(tf.ones([1, 1])).numpy() == [[2 * 20]]


def changed(source: pathlib.Path, change) -> pathlib.Path:
    """Changes a SavedModel's file in place."""
    model = parse_saved_model(source)
    change(model.meta_graphs[0])
    (source / "saved_model.pb").write_bytes(model.SerializeToString())
    return source


@pytest.mark.parametrize("name", ["../../words.txt", "/etc/passwd", "C:\\words.txt"])
def test_an_asset_that_is_not_its_own(tmp_path, words, name):
    table = own_table(words)
    source = write(tmp_path / "1", looked_up(table, words), words=words, table=table)

    def lead_out(graph):
        graph.asset_file_def[0].filename = name

    changed(source, lead_out)
    found = outside_ops(parse_saved_model(source))
    assert [op.reads_own_asset for op in found] == [False] * len(found)
    for trust in (False, True):
        with pytest.raises(SourceError, match="refers to a file outside of its folder"):
            tlkit.load_encoder(source, trust=trust)


def test_a_capture_that_is_no_asset(tmp_path, words):
    path = tf.constant("/etc/passwd")
    other = lambda x: taking(x, tf.io.read_file(path))
    source = write(tmp_path / "1", other, words=words, path=path)
    with pytest.raises(SourceError, match="ReadFile reads files"):
        tlkit.load_encoder(source)


# === The saver ===


def test_the_savers_ops_are_its_own(tmp_path):
    source = write(tmp_path / "1")
    nodes = [
        node.op
        for function in parse_saved_model(source)
        .meta_graphs[0]
        .graph_def.library.function
        for node in function.node_def
    ]
    assert {"SaveV2", "MergeV2Checkpoints", "RestoreV2"} <= set(nodes)
    assert outside_ops(parse_saved_model(source)) == []


def test_nobody_else_may_call_the_saver(tmp_path):
    source = write(tmp_path / "1")

    def call(graph):
        functions = {f.signature.name: f for f in graph.graph_def.library.function}
        (name,) = [name for name in functions if "traced_save" in name]
        (mine,) = [f for f in functions.values() if "__call__" in f.signature.name][:1]
        node = mine.node_def.add()
        node.name, node.op = "evil", "StatefulPartitionedCall"
        node.attr["f"].func.name = name

    changed(source, call)
    with pytest.raises(SourceError, match="SaveV2 writes files .in traced_save"):
        tlkit.load_encoder(source)


def test_the_restoring_part_of_a_saver_may_not_write(tmp_path):
    source = write(tmp_path / "1")

    def write_too(graph):
        for function in graph.graph_def.library.function:
            if "traced_restore" in function.signature.name:
                node = function.node_def.add()
                node.name, node.op = "evil", "SaveV2"

    changed(source, write_too)
    with pytest.raises(SourceError, match="SaveV2 writes files .in traced_restore"):
        tlkit.load_encoder(source)


def test_a_name_that_occurs_twice_is_not_trusted(tmp_path, words):
    table = own_table(words)
    source = write(tmp_path / "1", looked_up(table, words), words=words, table=table)

    def double(graph):
        library = graph.graph_def.library
        library.function.add().CopyFrom(library.function[0])

    changed(source, double)
    with pytest.raises(SourceError, match="does more than compute"):
        tlkit.load_encoder(source)


# === Before anything runs ===


def test_an_op_that_runs_on_loading_does_not_run(tmp_path):
    target = tmp_path / "evil"

    class Resource(tf.saved_model.experimental.TrackableResource):
        def _create_resource(self):
            return tf.raw_ops.HashTableV2(key_dtype=tf.string, value_dtype=tf.int64)

        def _initialize(self):
            tf.io.write_file(str(target), "x")

    resource = Resource()
    with tf.init_scope():
        resource.resource_handle  # noqa: B018  makes it
    source = write(tmp_path / "1", resource=resource)
    target.unlink(missing_ok=True)
    with pytest.raises(SourceError, match="WriteFile writes files"):
        tlkit.load_encoder(source)
    assert not target.exists()
    tlkit.load_encoder(source, trust=True)
    assert target.exists()  # so it is true that it runs


def test_a_saved_model_as_text_is_checked(tmp_path):
    source = write(tmp_path / "1", HARMFUL["WriteFile"])
    model = saved_model_pb2.SavedModel()
    model.ParseFromString((source / "saved_model.pb").read_bytes())
    (source / "saved_model.pbtxt").write_text(text_format.MessageToString(model))
    (source / "saved_model.pb").unlink()
    with pytest.raises(SourceError, match="WriteFile writes files"):
        tlkit.load_encoder(source)


def test_modules_in_memory_are_their_users(tmp_path):
    module = Encoder(HARMFUL["WriteFile"])
    encoder = tlkit.load_encoder(module)
    assert encoder.facts.file_ops == ("WriteFile",)


def test_the_error_lists_every_kind_and_some_places(tmp_path):
    both = lambda x: HARMFUL["WriteFile"](HARMFUL["PyFunc"](x))
    with pytest.raises(SourceError) as info:
        tlkit.inspect(write(tmp_path / "1", both), verbose=0)
    message = str(info.value)
    assert "PyFunc runs Python (in call" in message
    assert "WriteFile writes files (in call" in message


# === What is built on encoders ===


def test_classifiers_pass_trust_on(tmp_path):
    class Images(tf.Module):
        def __init__(self):
            super().__init__()
            self.kernel = tf.Variable(tf.ones([3, 2]))

        @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32)])
        def __call__(self, x):
            tf.io.write_file(str(tmp_path / "evil"), "x")
            return tf.reduce_mean(x, [1, 2]) @ self.kernel

    tf.saved_model.save(Images(), str(tmp_path / "1"))
    with pytest.raises(SourceError, match="WriteFile"):
        tlkit.image_classifier(tmp_path / "1", 2)
    model = tlkit.image_classifier(tmp_path / "1", 2, trust=True)
    assert model(tf.ones([1, 8, 8, 3])).shape == (1, 2)
    task = tlkit.tasks.Classification(["a", "b"])
    with pytest.raises(SourceError, match="WriteFile"):
        tlkit.build_model(tmp_path / "1", task)
    assert tlkit.build_model(tmp_path / "1", task, trust=True)


@pytest.fixture
def writer(tmp_path):
    """A preprocessor that writes a file whenever it is called."""

    class Preprocessor(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
        def __call__(self, texts):
            tf.io.write_file(str(tmp_path / "evil"), "x")
            ids = tf.tile(tf.strings.length(texts)[:, tf.newaxis], [1, 5]) * 0 + 1
            names = ("input_word_ids", "input_mask", "input_type_ids")
            return dict.fromkeys(names, ids)

    tf.saved_model.save(Preprocessor(), str(tmp_path / "pre"))
    return tmp_path / "pre"


def test_preprocessors_are_checked(tmp_path, writer):
    source = write_text_encoder(tmp_path / "encoder/1")
    with pytest.raises(SourceError, match="WriteFile writes files"):
        SavedPreprocessor(str(writer), Packing(5))

    kwargs = {"preprocessor": writer, "length": 5}
    refused = tlkit.text_classifier(source, 2, **kwargs)
    with pytest.raises(SourceError, match="WriteFile writes files"):
        tlkit.predict(refused, ["good"], verbose=0)
    path = tmp_path / "model.keras"
    refused.save(path)
    with pytest.raises(SourceError, match="WriteFile writes files"):
        tlkit.predict(keras.saving.load_model(path), ["good"], verbose=0)
    assert not (tmp_path / "evil").exists()
    trusting = keras.saving.load_model(path, safe_mode=False)
    assert len(tlkit.predict(trusting, ["good"], verbose=0)) == 1


def test_text_classifiers_pass_trust_on(tmp_path, writer):
    source = write_text_encoder(tmp_path / "encoder/1")
    model = tlkit.text_classifier(source, 2, preprocessor=writer, length=5, trust=True)
    assert len(tlkit.predict(model, ["good"], verbose=0)) == 1


def test_the_graph_of_a_keras_file_is_checked(tmp_path):
    # Opened, since reading a file has no effect that TensorFlow knows of.
    source = write(tmp_path / "1", HARMFUL["ReadFile"])
    encoder = tlkit.load_encoder(source, trust=True)
    if not encoder.opened:
        pytest.fail(encoder.why_not_opened)
    inputs = keras.Input([1])
    model = keras.Model(inputs, encoder(inputs))
    model.save(tmp_path / "model.keras")
    # Keras gathers errors, and warns of what it skips because of them.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=r"in this .keras file .*: ReadFile reads"):
            keras.saving.load_model(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=False)
    ones = np.ones([1, 1], np.float32)
    np.testing.assert_array_equal(loaded(ones), model(ones))
    # Copies in memory are the user's own.
    keras.models.clone_model(model)


def test_errors_of_other_kinds_come_first(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path / "1"))
    with pytest.raises(EncoderError, match="signatures only"):
        tlkit.load_encoder(tmp_path / "1")
