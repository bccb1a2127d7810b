"""Run by `test_encoders_under_strategies.py`: a strategy with two devices.

In a process of its own, since logical devices must be created before TensorFlow starts.
"""

import sys

import keras
import numpy as np
import tensorflow as tf

import tlkit

cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
VECTORS = np.random.default_rng(1).normal(size=(8, 6)).astype("float32")


def load(folder):
    """The same encoder, plain and mirrored, with its last block trained."""
    plain = tlkit.load_encoder(folder)
    with strategy.scope():
        mirrored = tlkit.load_encoder(folder)
    for encoder in (plain, mirrored):
        tlkit.freeze(encoder, train=1, batch_norm="frozen")
    return plain, mirrored


def gradients_of(encoder, inputs):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(encoder(inputs, training=True) ** 2)
    return tape.gradient(loss, [v.value for v in encoder.trainable_variables])


def replicas_add_up_to_one_device(folder, inputs, opened):
    plain, mirrored = load(folder)
    assert plain.opened is mirrored.opened is opened

    @tf.function
    def step(batch):
        context = tf.distribute.get_replica_context()
        return context.all_reduce("SUM", gradients_of(mirrored, batch))

    dataset = tf.data.Dataset.from_tensor_slices(inputs).batch(8)
    batch = next(iter(strategy.experimental_distribute_dataset(dataset)))
    found = strategy.run(step, args=(batch,))
    expected = gradients_of(plain, tf.constant(inputs))
    for one, other in zip(found, expected, strict=True):
        one = strategy.experimental_local_results(one)[0].numpy()
        scale = np.abs(other.numpy()).max()
        assert np.abs(one - other.numpy()).max() <= 1e-4 * scale


def replicas_draw_different_numbers(folder):
    _, mirrored = load(folder)
    same = tf.constant(np.repeat(IMAGES[:1], 4, axis=0))
    run = tf.function(lambda: mirrored(same, training=True))
    one, two = strategy.experimental_local_results(strategy.run(run))
    assert not np.allclose(one.numpy(), two.numpy())


def clones_go_into_the_scope(folder):
    plain, _ = load(folder)
    with strategy.scope():
        copy = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(plain)
        )
    copy.set_weights(plain.get_weights())
    found = strategy.run(lambda: copy(tf.constant(IMAGES[:2])))
    found = strategy.experimental_local_results(found)[0]
    np.testing.assert_allclose(found, plain(tf.constant(IMAGES[:2])), rtol=1e-5)


tf1, keras2, loop = sys.argv[1:]
replicas_add_up_to_one_device(tf1, IMAGES, opened=True)
replicas_add_up_to_one_device(loop, VECTORS, opened=False)
replicas_draw_different_numbers(keras2)
clones_go_into_the_scope(keras2)
print("fine")
