"""What the loop itself costs: `tlkit.fit` against a bare step and Keras's `fit`.

    python -m tests.benchmarks.loop [--repeats 3]

The same compiled model, data and optimizer (AdamW), once trained by a `tf.function`
that does nothing but forward, backward and `optimizer.apply` (`bare`, called from a
Python loop over the same `tf.data` batches), once by `model.fit` (`keras`), once by
`tlkit.fit` (`tlkit`). ResNet-50 (opened, all blocks, 224 pixels, batches of 8), and a
tiny network of two dense layers where nothing but the loop costs. For the tiny one also
`graph`: the bare step in a loop inside the graph, which is what it costs without any
Python. All are in one process and take turns, a step each (ResNet-50) or an epoch (the
tiny one); a ratio is the median over the rounds but the first three, in which they
trace. Printed are the time that passes and, where it says so, that of all cores.

The bars: `tlkit` at most 3 % above `bare` on ResNet-50, at most 0.3 ms above `graph` on
the tiny network, and not behind `keras`.

Learnt: calling a `tf.function` from Python costs some 0.2 ms with an iterator as an
argument, so many updates run in one call; reading a Keras metric costs another 0.2 ms,
so figures are read once an epoch unless a callback wants them. All read without the
tuner of `tf.data`, which makes some epochs last up to twice their work, whoever trains
(`tests/benchmarks/epoch_ends.py`); `tlkit` always does. In processes of their own the
same step of ResNet-50 varies by 15 %, perhaps with what else the machine does to its
caches, and even turns of an epoch by 10 %. Hence turns of a step. Half of what an
update of AdamW took was saved by TensorFlow's one op for Adam's step, 2 % of the whole
(`tlkit/training/adam.py`); looking for gradients that are not finite takes 0.4 %.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import json
import operator
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from tests.benchmarks.step import _resnet_folder
from tests.benchmarks.timing import run_variants

SIZES = {"resnet": (8, 9), "tiny": (2000, 9)}  # batches in an epoch, epochs
TURN = {"resnet": 1, "tiny": 2000}  # steps
TRACING = 3  # rounds at the beginning that do not count


class Turns:
    """Lets one contestant run at a time, and notes how long each of its turns took."""

    def __init__(self, names: Sequence[str]):
        self.seconds: dict[str, list[float]] = {name: [] for name in names}
        self.cpu: dict[str, list[float]] = {name: [] for name in names}
        self._order = list(names)
        self._changed = threading.Condition()

    def run(self, name: str, contestant: Callable[[Callable[[], None]], None]) -> None:
        """Runs a contestant, which calls what it is given at the end of each turn."""
        self._await(name)
        try:
            contestant(functools.partial(self._pass_on, name))
        finally:
            self._rotate(name, leaves=True)

    def _await(self, name: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._order[0] == name)
        self._began = time.perf_counter()
        self._cpu = time.process_time()

    def _pass_on(self, name: str) -> None:
        self.seconds[name].append(time.perf_counter() - self._began)
        self.cpu[name].append(time.process_time() - self._cpu)
        self._rotate(name)
        self._await(name)

    def _rotate(self, name: str, *, leaves: bool = False) -> None:
        with self._changed:
            self._order.remove(name)
            if not leaves:
                self._order.append(name)
            self._changed.notify_all()


def _job(network: str):
    """The compiled model and its batches."""
    import keras
    import tensorflow as tf

    import tlkit
    from tlkit.data.examples.tf_data import untuned

    random = np.random.default_rng(0)
    batches, _ = SIZES[network]
    if network == "resnet":
        folder = _resnet_folder()
        model = tlkit.image_classifier(folder, [str(i) for i in range(10)])
        # The mode that the phase below gives them, or the others would do less work.
        tlkit.freeze(model, train="all", batch_norm="train")
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
    return model, untuned(data)


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


def _bare(model, data, network: str, tick) -> None:
    import tensorflow as tf

    step = tf.function(_bare_step(model))
    for _ in range(SIZES[network][1]):
        for number, (x, y) in enumerate(data, 1):
            loss = step(x, y)
            if number % TURN[network] == 0:
                loss.numpy()
                tick()


def _graph(model, data, network: str, tick) -> None:
    import tensorflow as tf

    step = _bare_step(model)

    @tf.function
    def epoch(batches):
        for x, y in batches:
            step(x, y)

    for _ in range(SIZES[network][1]):
        epoch(data)
        tick()


def _ticking(network: str, tick):
    import keras

    if TURN[network] == 1:
        return keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: tick()
        )
    return keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: tick())


def _tlkit_fit(model, data, network: str, tick) -> None:
    import tlkit

    epochs, callbacks = SIZES[network][1], [_ticking(network, tick)]
    schedule = tlkit.Phase("all", epochs=epochs, batch_norm="train", decay="constant")
    tlkit.fit(model, data, schedule=schedule, verbose=0, callbacks=callbacks)


def _keras_fit(model, data, network: str, tick) -> None:
    epochs, callbacks = SIZES[network][1], [_ticking(network, tick)]
    model.fit(data, epochs=epochs, verbose=0, callbacks=callbacks)


def measure(network: str) -> dict[str, list[float]]:
    """Milliseconds a step of each contestant, in each round but the first ones.

    Under its name the time that passes, under `<name>, cores` that of all cores.
    """
    contestants = {"bare": _bare, "tlkit": _tlkit_fit, "keras": _keras_fit}
    if network == "tiny":
        contestants["graph"] = _graph
    jobs = {name: _job(network) for name in contestants}
    turns = Turns(list(contestants))
    with concurrent.futures.ThreadPoolExecutor(len(contestants)) as pool:
        running = [
            pool.submit(turns.run, name, functools.partial(run, *jobs[name], network))
            for name, run in contestants.items()
        ]
        for each in concurrent.futures.as_completed(running):
            each.result()
    found = turns.seconds | {f"{name}, cores": cpu for name, cpu in turns.cpu.items()}
    steps = TURN[network]
    return {
        name: [1e3 * seconds / steps for seconds in each[TRACING:]]
        for name, each in found.items()
    }


def _compare(runs: list[dict], one: str, other: str, by: Callable) -> float:
    """The median over all rounds of all runs."""
    pairs = [pair for run in runs for pair in zip(run[one], run[other], strict=True)]
    return statistics.median(by(a, b) for a, b in pairs)


def main() -> None:
    """Runs all in turn, and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--variant", choices=SIZES)
    parser.add_argument("--only", choices=SIZES)
    given = parser.parse_args()
    if given.variant:
        print(json.dumps(measure(given.variant)))
        return
    wanted = [given.only] if given.only else list(SIZES)
    runs = run_variants("tests.benchmarks.loop", wanted, repeats=given.repeats)
    for network, found in runs.items():
        for name in found[0]:
            ms = [value for run in found for value in run[name]]
            print(f"{network}, {name}: {statistics.median(ms):.3f} ms a step")
        if network == "resnet":
            above, cores = (
                100 * (_compare(found, f"tlkit{of}", f"bare{of}", operator.truediv) - 1)
                for of in ("", ", cores")
            )
            print(
                f"{network}: tlkit {above:+.1f} % against bare (at most 3), of the "
                f"cores' time {cores:+.1f} %"
            )
        else:
            above = _compare(found, "tlkit", "graph", operator.sub)
            print(f"{network}: tlkit {above:+.3f} ms against graph (at most 0.3)")
        keras = _compare(found, "tlkit", "keras", operator.truediv)
        print(f"{network}: tlkit takes {keras:.3f} of keras (at most 1)")


if __name__ == "__main__":
    main()
