"""Several replicas end where one device does."""

import numpy as np
import pytest

from tests.training.two_devices import result_of, start

CODE = """
import tempfile
import keras, numpy as np
import tlkit
from tlkit.training import Phase, fit, strategy

def make(place):
    with (place or tf.distribute.get_strategy()).scope():
        inputs = outputs = keras.Input((8, 8, 3))
        for name in ("stage1_conv", "stage2_conv"):
            outputs = keras.layers.Conv2D(5, 3, 2, name=name)(outputs)
            outputs = keras.layers.BatchNormalization(name=f"{name}_bn")(outputs)
        inner = keras.Model(inputs, outputs, name="inner")
        random = np.random.default_rng(1)
        inner.set_weights(
            [random.uniform(0.2, 0.4, size=w.shape) for w in inner.get_weights()]
        )
        encoder = tlkit.load_encoder(inner)
        model = tlkit.image_classifier(encoder, ["a", "b", "c"])
    dense = model.get_layer("head").dense
    dense.kernel.assign(np.linspace(-1, 1, 15).reshape(5, 3))
    return model

random = np.random.default_rng(0)
x = random.uniform(0, 255, (19, 8, 8, 3)).astype("float32")
y = np.arange(19) % 3
mirrored = strategy("mirrored")
assert mirrored.num_replicas_in_sync == 2
places = {"one": (None, None), "inside": (mirrored, mirrored),
          "copied": (None, mirrored), "compiled": (None, mirrored)}
result = {}
for name, (home, place) in places.items():
    model = make(home)
    report = fit(
        model, x, y, strategy=place, validation_data=(x, y), verbose=0,
        # The last batch has three examples, the last update of an epoch one batch.
        batch_size=4, gradient_accumulation_steps=2,
        schedule=[Phase("head", epochs=2, learning_rate=1e-2),
                  Phase("all", epochs=2, learning_rate=1e-2, layer_decay=0.5)],
        optimizer=keras.optimizers.AdamW(global_clipnorm=0.5), ema=0.9,
        jit_compile=name == "compiled", directory=tempfile.mkdtemp(),
    )
    result[name] = [w.tolist() for w in model.get_weights()]
    result[name + " history"] = report.history
print(json.dumps(result))
"""


@pytest.fixture(scope="module")
def results():
    return result_of(start(CODE))


@pytest.mark.parametrize("name", ["inside", "copied", "compiled"])
def test_two_replicas_end_where_one_device_does(results, name):
    for one, two in zip(results["one"], results[name], strict=True):
        scale = np.abs(one).max()
        np.testing.assert_allclose(np.array(two) / scale, one / scale, atol=1e-5)
    for figure, values in results["one history"].items():
        np.testing.assert_allclose(
            values, results[f"{name} history"][figure], rtol=1e-4
        )
