"""Two replicas end where one device does."""

import json
import subprocess
import sys

import numpy as np

# In a process of its own: logical devices are made before TensorFlow starts.
CODE = """
import json
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import tlkit
from tlkit.errors import TrainingError
from tlkit.training import Phase, fit, strategy

def make():
    inputs = outputs = keras.Input((8, 8, 3))
    for name in ("stage1_conv", "stage2_conv"):
        outputs = keras.layers.Conv2D(5, 3, 2, name=name)(outputs)
    inner = keras.Model(inputs, outputs, name="inner")
    random = np.random.default_rng(1)
    inner.set_weights([random.normal(size=w.shape) / 4 for w in inner.get_weights()])
    encoder = tlkit.load_encoder(inner)
    model = tlkit.image_classifier(encoder, ["a", "b", "c"])
    dense = model.get_layer("head").dense
    dense.kernel.assign(np.linspace(-1, 1, 15).reshape(5, 3))
    return model

random = np.random.default_rng(0)
x = random.uniform(0, 255, (11, 8, 8, 3)).astype("float32")
y = np.arange(11) % 3
mirrored = strategy("mirrored")
assert mirrored.num_replicas_in_sync == 2
result = {}
for name, place in (("one", None), ("two", mirrored)):
    with (place or tf.distribute.get_strategy()).scope():
        model = make()
    schedule = [Phase("head", epochs=2), Phase(1, epochs=2, learning_rate=1e-2)]
    report = fit(
        model, x, y, schedule=schedule, batch_size=4, strategy=place,
        validation_data=(x, y), verbose=0,
    )
    result[name] = [w.tolist() for w in model.get_weights()]
    result[name + " history"] = report.history
    if place is None:
        try:
            fit(model, x, y, strategy=mirrored, verbose=0)
        except TrainingError as error:
            result["error"] = str(error)
print(json.dumps(result))
"""


def test_two_replicas_end_where_one_device_does():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    for one, two in zip(result["one"], result["two"], strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    for name, figures in result["one history"].items():
        np.testing.assert_allclose(figures, result["two history"][name], rtol=1e-4)
    assert "with strategy.scope():" in result["error"]
