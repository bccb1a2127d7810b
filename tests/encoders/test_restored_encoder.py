"""The fallback owns the variables of its module."""

import numpy as np

import tlkit
from tests.tiny import write_image_encoder


def test_the_layer_owns_the_very_variables_of_the_module(tmp_path):
    source = write_image_encoder(tmp_path / "1")
    encoder = tlkit.load_encoder(source, open_graph=False)
    assert not encoder.opened and len(encoder.weights) == 10
    assert len(encoder.trainable_weights) == 6
    held = {id(v) for v in encoder.module.__call__.concrete_functions[0].variables}
    assert held <= {id(weight.value) for weight in encoder.weights}
    inputs = np.ones((1, 8, 8, 3), np.float32)
    before = encoder(inputs).numpy()
    for weight in encoder.trainable_weights:
        if weight.name.endswith("beta"):
            weight.assign(np.full(weight.shape, 1.0))
    assert not np.allclose(encoder(inputs), before)
