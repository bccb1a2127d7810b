"""Encoders under a strategy: two devices, in a process of its own."""

import pathlib
import subprocess
import sys

import tlkit

CODE = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
import tlkit

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
shape = (8, 8, 8, 3) if sys.argv[4] == "opened" else (8, 6)
data = np.random.default_rng(0).normal(size=shape).astype("float32")

def gradients_of(encoder, images):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(images, training=True) ** 2)
    return tape.gradient(loss, [v.value for v in encoder.trainable_variables])

plain = tlkit.load_encoder(sys.argv[1])
with strategy.scope():
    mirrored = tlkit.load_encoder(sys.argv[1])
for encoder in (plain, mirrored):
    assert encoder.opened is (sys.argv[4] == "opened")
    tlkit.freeze(encoder, train=1, batch_norm=sys.argv[2])

@tf.function
def step(images):
    context = tf.distribute.get_replica_context()
    return context.all_reduce("SUM", gradients_of(mirrored, images))

halves = iter(strategy.experimental_distribute_dataset(
    tf.data.Dataset.from_tensor_slices(data).batch(8)))
found = strategy.run(step, args=(next(halves),))
found = [strategy.experimental_local_results(value)[0].numpy() for value in found]
if sys.argv[3] == "same":  # nothing random, nothing of the batch
    expected = [g.numpy() for g in gradients_of(plain, tf.constant(data))]
    for one, other in zip(found, expected, strict=True):
        scale = np.abs(other).max()
        assert np.abs(one - other).max() <= 1e-4 * scale, (one, other)
else:
    assert all(np.isfinite(g).all() for g in found)
    same = np.repeat(data[:1], 4, axis=0)
    def run():
        return mirrored(tf.constant(same), training=True)
    one, two = strategy.experimental_local_results(strategy.run(tf.function(run)))
    assert not np.allclose(one.numpy(), two.numpy())  # their dropouts differ
print("fine")
"""


def _run(*arguments):
    root = pathlib.Path(tlkit.__file__).parents[1]
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "fine", done.stderr[-3000:]


def test_replicas_add_up_to_one_device(written):
    _run(written("tf1"), "frozen", "same", "opened")


def test_replicas_draw_different_numbers(written):
    _run(written("keras2"), "frozen", "different", "opened")


def test_what_was_not_opened_is_mirrored(written):
    _run(written("while"), "frozen", "same", "restored")
