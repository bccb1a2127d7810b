"""What dropout leaves out differs between layers, steps and replicas, and repeats."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.training.two_devices import result_of, start
from tlkit.training.loop.replica_state import seed_generators, set_seeds

MASKS = """
import keras
from tlkit.training.loop.replica_state import seed_generators, set_seeds

class Two(keras.Model):
    def __init__(self):
        super().__init__()
        self.one, self.two = keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)

    def call(self, inputs, training=False):
        ones = tf.ones_like(inputs)
        return [layer(ones, training=training) for layer in (self.one, self.two)]

strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
with strategy.scope():
    model = Two()
generators = seed_generators(model)

def masks(jit_compile, seed, steps):
    forward = tf.function(model, jit_compile=jit_compile, autograph=False)

    def step(number):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        set_seeds(generators, seed, number, replica)
        twice = [forward(tf.zeros([40]), training=True) for _ in range(2)]
        return tf.stack(tf.nest.flatten(twice))

    @tf.function(autograph=False)
    def many(first, last):
        arrays = [tf.TensorArray(tf.float32, 0, dynamic_size=True) for _ in range(2)]

        def one(number, *arrays):
            found = strategy.experimental_local_results(strategy.run(step, (number,)))
            at = tf.cast(number - first, tf.int32)
            return number + 1, *(a.write(at, x) for a, x in zip(arrays, found))

        _, *arrays = tf.while_loop(lambda n, *_: n < last, one, (first, *arrays))
        return tf.stack([array.stack() for array in arrays])

    found = many(*(tf.constant(n, tf.int64) for n in steps))
    return (found.numpy() > 0).astype(int).tolist()

steps = (0, 3)
print(json.dumps({
    "run": masks(False, 7, steps),
    "again": masks(False, 7, steps),
    "resumed": masks(False, 7, (2, 3)),
    "late": masks(False, 7, (2**31 - 2, 2**31 - 1)),
    "compiled": masks(True, 7, steps),
    "compiled again": masks(True, 7, steps),
    "seed": masks(False, 8, steps),
}))
"""


@pytest.fixture(scope="module")
def masks():
    """Each `[replica, step, call and layer, unit]`, 0 where a unit is left out."""
    found = result_of(start(MASKS))
    return {name: np.array(values) for name, values in found.items()}


def all_differ(rows):
    return len({tuple(row) for row in rows}) == len(rows)


@pytest.mark.parametrize("name", ["run", "compiled"])
def test_no_two_masks_are_alike(masks, name):
    found = masks[name]
    assert found.shape == (2, 3, 4, 40)
    assert all_differ(found.reshape(24, 40))
    assert 0.4 < found.mean() < 0.6


def test_masks_repeat_with_the_seed_only(masks):
    np.testing.assert_array_equal(masks["again"], masks["run"])
    np.testing.assert_array_equal(masks["compiled again"], masks["compiled"])
    both = np.concatenate([masks["run"], masks["seed"], masks["late"]], axis=1)
    assert all_differ(both.reshape(-1, 40))


def test_a_step_needs_no_steps_before_it(masks):
    np.testing.assert_array_equal(masks["resumed"][:, 0], masks["run"][:, 2])


def test_every_generator_is_found_once(text_encoder):
    class Own(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.inside = [keras.layers.GaussianNoise(0.1), keras.layers.Dropout(0.1)]
            self.generators = {"one": keras.random.SeedGenerator(3)}

        def call(self, x):
            return x

    shared = keras.layers.Dropout(0.5)
    encoder = tlkit.load_encoder(text_encoder)
    sequential = keras.Sequential([shared, keras.Sequential([shared, Own()])])
    found = seed_generators(sequential)
    names = [variable.path.split("/")[-1] for variable in found]
    assert names == ["seed_generator_state"] * 4
    assert len({id(variable) for variable in found}) == 4
    assert found == seed_generators(sequential)
    assert len(seed_generators(encoder)) == 1
    classifier = tlkit.text_classifier(encoder, ["a", "b"])
    assert len(seed_generators(classifier)) == 2  # the head's, too
    assert seed_generators(keras.layers.Dense(2)) == []


def test_an_opened_encoder_draws_by_the_seed(text_encoder):
    encoder = tlkit.load_encoder(text_encoder, output="pooled_output")
    names = ("input_word_ids", "input_mask", "input_type_ids")
    inputs = {name: tf.ones((2, 6), tf.int32) for name in names}
    generators = seed_generators(encoder)

    def outputs(seed, step):
        set_seeds(generators, seed, step, 0)
        return encoder(inputs, training=True).numpy()

    np.testing.assert_array_equal(outputs(1, 5), outputs(1, 5))
    assert abs(outputs(1, 5) - outputs(1, 6)).max() > 1e-3
    assert abs(outputs(1, 5) - outputs(2, 5)).max() > 1e-3


def test_few_ops():
    model = keras.Sequential([keras.layers.Dropout(0.5) for _ in range(30)])
    generators = seed_generators(model)
    graph = tf.function(lambda step: set_seeds(generators, 1, step, 0))
    graph = graph.get_concrete_function(tf.TensorSpec((), tf.int64)).graph
    kinds = [op.type for op in graph.get_operations()]
    assert kinds.count("AssignVariableOp") == 30
    assert sum("Random" in kind for kind in kinds) <= 6
    assert len([kind for kind in kinds if kind not in ("Const", "Placeholder")]) < 130
