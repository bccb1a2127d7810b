"""TF Serving's own protocol buffers read the files that are written for it."""

import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import text_format

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder
from tlkit.serving.export_examples import take_examples
from tlkit.serving.extra_files import BATCH_SIZES, WARM_UP_FILE

prediction_log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")


def logs(path):
    records = tf.data.TFRecordDataset(str(path / "assets.extra" / WARM_UP_FILE))
    return [
        prediction_log.PredictionLog.FromString(record)
        for record in records.as_numpy_iterator()
    ]


def test_warm_up_requests_are_real_examples_and_succeed(tmp_path):
    source = write_text_encoder(tmp_path / "encoder" / "1")
    model = tlkit.text_classifier(source, ["good", "bad"])
    texts = ["good film", "bad film the", "the film", "good"]
    path = tlkit.export(model, tmp_path / "films", examples=texts, check=False)
    served = tf.saved_model.load(str(path))
    seen = []
    for log in logs(path):
        request = log.predict_log.request
        assert request.model_spec.name == "films"
        (name,) = request.inputs
        inputs = tf.make_ndarray(request.inputs[name])
        answer = served.signatures[request.model_spec.signature_name](
            **{name: tf.constant(inputs)}
        )
        assert all(len(tensor) == len(inputs) for tensor in answer.values())
        assert {text.decode() for text in inputs} <= set(texts)
        seen.append((request.model_spec.signature_name, name, len(inputs)))
    assert seen == [
        ("serving_default", "text", 1),
        ("serving_default", "text", 32),
        ("embed", "text", 1),
    ]


def test_large_images_make_no_large_file(tmp_path):
    source = write_image_encoder(tmp_path / "encoder" / "1")
    model = tlkit.image_classifier(source, 2, image_size=8)
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (3, 300, 300, 3)).astype(np.uint8)
    path = tlkit.export(model, tmp_path / "noise", examples=noise, check=False)
    first, second = (log.predict_log.request.inputs for log in logs(path))
    for inputs in (first, second):
        (picture,) = tf.make_ndarray(inputs["image_bytes"])
        assert picture in take_examples(model, noise).raws


def test_the_servers_settings_can_be_parsed(tmp_path):
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2")
    source = write_image_encoder(tmp_path / "encoder" / "1")
    model = tlkit.image_classifier(source, 2, image_size=8)
    path = tlkit.export(model, tmp_path / "flowers", check=False)
    text = (path / "assets.extra" / "models.config").read_text()
    found = text_format.Parse(text, config.ModelServerConfig())
    (entry,) = found.model_config_list.config
    assert (entry.name, entry.base_path) == ("flowers", "/models/flowers")
    assert entry.model_version_policy.latest.num_versions == 2
    batching = (path / "assets.extra" / "batching.config").read_text()
    assert [
        int(line.split(": ")[1])
        for line in batching.splitlines()
        if line.startswith("allowed_batch_sizes")
    ] == list(BATCH_SIZES)
