"""How long an iterator of `tf.data` takes to end, with its tuner and without.

    python -m tests.benchmarks.epoch_ends [--epochs 14]

Reads the same batches epoch after epoch, and multiplies matrices on all cores in each
step. With the tuner, which is TensorFlow's default, some epochs last until 2.55 s
after their beginning (10 ms, doubled eight times) though their work is done:
`tlkit/data/reading.py` says why. Seconds of each epoch; the first also traces.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from tests.benchmarks.timing import run_variants

VARIANTS = ("tuned", "untuned")


def measure(variant: str, epochs: int) -> list[float]:
    """Seconds of each epoch."""
    import tensorflow as tf

    from tlkit.data.examples.tf_data import untuned

    with tf.device("CPU"):
        x = np.zeros((64, 224, 224, 3), np.float32)
        dataset = tf.data.Dataset.from_tensor_slices(x).batch(8).prefetch(4)
    if variant == "untuned":
        dataset = untuned(dataset)
    matrix = tf.random.normal((1500, 1500))

    @tf.function
    def step(batch):
        product = matrix
        for _ in range(6):
            product = tf.linalg.matmul(product, matrix) * 1e-3
        return tf.reduce_sum(product) + tf.reduce_sum(batch)

    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        for batch in dataset:
            found = step(batch)
        found.numpy()
        seconds.append(round(time.perf_counter() - began, 2))
    return seconds


def main() -> None:
    """Runs both, and prints the longest of their epochs in medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--variant", choices=VARIANTS)
    given = parser.parse_args()
    if given.variant:
        print(json.dumps({"seconds": measure(given.variant, given.epochs)}))
        return
    for name, found in run_variants(__spec__.name, VARIANTS, repeats=1).items():
        later = found[0]["seconds"][1:]
        ratio = max(later) / float(np.median(later))
        print(f"{name}: the longest epoch takes {ratio:.2f} times the median")


if __name__ == "__main__":
    main()
