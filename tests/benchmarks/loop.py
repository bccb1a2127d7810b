"""What the loop itself costs: `tlkit.fit` against a bare step and Keras's `fit`.

    python -m tests.benchmarks.loop [--repeats 3]

The same compiled model, data and optimizer (AdamW), once trained by a `tf.function`
that does nothing but forward, backward and `optimizer.apply` (`bare`, called from a
Python loop over the same `tf.data` batches), once by `model.fit` (`keras`), once by
`tlkit.fit` (`tlkit`). ResNet-50 (opened, all blocks, 224 pixels, batches of 8), and a
tiny network of two dense layers where nothing but the loop costs. For the tiny one also
`graph`: the bare step in a loop inside the graph, which is what it costs without any
Python. Milliseconds a step, from the second epoch on.

The bars: `tlkit` at most 3 % above `bare` on ResNet-50, at most 0.3 ms above `graph` on
the tiny network, and not behind `keras`.

Learnt: calling a `tf.function` from Python costs some 0.2 ms with an iterator as an
argument, so many updates run in one call; reading a Keras metric costs another 0.2 ms,
so figures are read once an epoch unless a callback wants them.
"""

from __future__ import annotations

import argparse
import json
import math
import time

import numpy as np

from .step import _resnet_folder
from .timing import median, run_variants

SIZES = {"resnet": (12, 3), "tiny": (2000, 4)}  # batches in an epoch, epochs
VARIANTS = [
    "bare-resnet",
    "tlkit-resnet",
    "keras-resnet",
    "bare-tiny",
    "graph-tiny",
    "tlkit-tiny",
    "keras-tiny",
]


def _job(network: str):
    """The compiled model and its batches."""
    import keras
    import tensorflow as tf

    import tlkit

    random = np.random.default_rng(0)
    batches, _ = SIZES[network]
    if network == "resnet":
        folder = _resnet_folder()
        model = tlkit.image_classifier(folder, [str(i) for i in range(10)])
        tlkit.freeze(model, train="all")
        x = random.integers(0, 255, (8 * batches, 224, 224, 3)).astype(np.float32)
        y = random.integers(0, 10, 8 * batches)
    else:
        model = keras.Sequential(
            [keras.Input((8,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
        )
        x = random.normal(size=(8 * batches, 8)).astype(np.float32)
        y = random.integers(0, 3, 8 * batches)
    model.compile(
        keras.optimizers.AdamW(1e-4),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    with tf.device("CPU"):
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8).prefetch(4)
    return model, data


class _Clock:
    """When each epoch ended."""

    def __init__(self):
        self.times = [time.perf_counter()]

    def tick(self) -> None:
        self.times.append(time.perf_counter())

    def step_ms(self, network: str) -> float:
        """The fastest epoch but the first, which traces."""
        return 1e3 * float(np.diff(self.times)[1:].min()) / SIZES[network][0]


def _bare_step(model):
    import tensorflow as tf

    variables = model.trainable_variables
    model.optimizer.build(variables)

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = model.compute_loss(x, y, model(x, training=True))
        gradients = tape.gradient(loss, [v.value for v in variables])
        model.optimizer.apply(gradients, variables)
        return loss

    return step


def _bare(model, data, epochs: int, clock: _Clock) -> None:
    import tensorflow as tf

    step = tf.function(_bare_step(model))
    for _ in range(epochs):
        for x, y in data:
            loss = step(x, y)
        loss.numpy()
        clock.tick()


def _graph(model, data, epochs: int, clock: _Clock) -> None:
    import tensorflow as tf

    step = _bare_step(model)

    @tf.function
    def epoch(batches):
        for x, y in batches:
            step(x, y)

    for _ in range(epochs):
        epoch(data)
        clock.tick()


def _fit(fit, model, data, epochs: int, clock: _Clock) -> None:
    import keras

    each = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: clock.tick())
    fit(model, data, epochs=epochs, verbose=0, callbacks=[each])


def measure(variant: str) -> dict[str, float]:
    """Runs one variant, as its process does."""
    import keras

    import tlkit

    kind, network = variant.split("-")
    model, data = _job(network)
    epochs, clock = SIZES[network][1], _Clock()
    schedule = tlkit.Phase("all", epochs=epochs, batch_norm="train", decay="constant")

    def by_tlkit(model, data, epochs, **options):
        tlkit.fit(model, data, schedule=schedule, **options)

    runs = {
        "bare": _bare,
        "graph": _graph,
        "keras": lambda *job: _fit(keras.Model.fit, *job),
        "tlkit": lambda *job: _fit(by_tlkit, *job),
    }
    runs[kind](model, data, epochs, clock)
    return {"step_ms": clock.step_ms(network)}


def main() -> None:
    """Runs all variants in turn, and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--only", default="", help="part of the variants' names")
    given = parser.parse_args()
    if given.variant:
        print(json.dumps(measure(given.variant)))
        return
    wanted = [name for name in VARIANTS if given.only in name]
    runs = run_variants("tests.benchmarks.loop", wanted, repeats=given.repeats)
    ms = {name: median(found, "step_ms") for name, found in runs.items()}
    get = lambda name: ms.get(name, math.nan)
    summary = {
        "resnet: tlkit / bare": get("tlkit-resnet") / get("bare-resnet"),
        "resnet: tlkit / keras": get("tlkit-resnet") / get("keras-resnet"),
        "tiny: tlkit - graph, ms": get("tlkit-tiny") - get("graph-tiny"),
        "tiny: tlkit / keras": get("tlkit-tiny") / get("keras-tiny"),
    }
    print(json.dumps({"step_ms": ms} | summary))


if __name__ == "__main__":
    main()
