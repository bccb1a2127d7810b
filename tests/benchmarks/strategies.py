"""The same job on one device, two replicas and two processes: the same weights?

    python -m tests.benchmarks.strategies [--texts 70] [--epochs 2]

MiniLM (length 64), the last two blocks and the head, AdamW with global-norm clipping,
two batches of 16 in an update, six texts in the last batch, dropout off, R8. Trained on
no strategy, by MirroredStrategy over two logical CPUs, and by two worker processes;
and by XLA (`compiled`). Then Keras 3's own `fit` with the same model, optimizer and
batches, whose errors are shown as they come.

Printed for each: the largest difference of a weight from the one of `one`, over the
largest weight of its variable; and the difference of all weights over what training
moved them (norms). The bar is 1e-5 for the first.

Learnt: what Adam does with a gradient that is zero but for rounding (a key's bias in
attention) depends on its epsilon; the default 1e-7 is enough here.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

PLACES = {"one": 1, "mirrored": 2, "workers": 1, "compiled": 1}
LABELS, BATCH, LENGTH = 8, 16, 64


def _job(given: argparse.Namespace):
    """The model, where it is to be trained, the optimizer, and the texts."""
    import keras
    import tensorflow as tf

    import tlkit

    kind = given.variant.removeprefix("keras-")
    cpu = tf.config.list_physical_devices("CPU")[0]
    logical = [tf.config.LogicalDeviceConfiguration()] * PLACES[kind]
    tf.config.set_logical_device_configuration(cpu, logical)
    strategies = {"mirrored": "mirrored", "workers": "multi_worker"}
    place = tlkit.strategy(strategies[kind]) if kind in strategies else None
    data = tlkit.samples.data("reuters-r8", verbose=0)
    texts = data.train_texts[: given.texts]
    names = sorted(set(data.train_labels))
    classes = [names.index(label) for label in data.train_labels[: given.texts]]
    encoder = tlkit.samples.encoder("minilm", verbose=0)
    with (place or tf.distribute.get_strategy()).scope():
        model = tlkit.text_classifier(encoder, LABELS, length=LENGTH, dropout=0.0)
        optimizer = keras.optimizers.AdamW(
            1e-4, global_clipnorm=1.0, gradient_accumulation_steps=2
        )
    kernel = model.get_layer("head").dense.kernel
    random = np.random.default_rng(0)
    kernel.assign(random.normal(size=kernel.shape) / 20)
    return model, place, optimizer, texts, classes


def _by_tlkit(given, model, place, optimizer, texts, classes) -> None:
    import tlkit

    phase = tlkit.Phase(2, epochs=given.epochs, learning_rate=1e-4, dropout=False)
    tlkit.fit(
        model,
        texts,
        classes,
        schedule=phase,
        strategy=place,
        optimizer=optimizer,
        batch_size=BATCH,
        jit_compile=given.variant == "compiled",
        verbose=0,
    )


def _by_keras(given, model, place, optimizer, texts, classes) -> None:
    import keras
    import tensorflow as tf

    import tlkit

    tlkit.freeze(model, train=2, dropout=False)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    data = tf.data.Dataset.from_tensor_slices((texts, classes))
    preprocess = tlkit.models.preprocessing(model)
    data = tlkit.data.batches(data, preprocess, batch_size=BATCH)
    model.fit(data, epochs=given.epochs, verbose=0)


def measure(given: argparse.Namespace) -> None:
    """Trains one variant and writes its weights, as its process does."""
    model, *job = _job(given)
    train = _by_keras if given.variant.startswith("keras-") else _by_tlkit
    before = [w.copy() for w in model.get_weights()]
    train(given, model, *job)
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {})
    folder = pathlib.Path(given.folder)
    np.savez(
        folder / f"{given.variant}{task.get('index', '')}.npz", *model.get_weights()
    )
    np.savez(folder / "before.npz", *before)


def _start(given: argparse.Namespace, variant: str, folder: str) -> str:
    """Runs a variant; gives what it died of, or nothing."""
    options = ["--variant", variant, "--folder", folder]
    options += ["--texts", str(given.texts), "--epochs", str(given.epochs)]
    command = [sys.executable, "-m"]
    if variant.endswith("workers"):
        command += ["tlkit.launch", "--workers", "2", "--restarts", "0", "-m"]
    done = subprocess.run(
        [*command, "tests.benchmarks.strategies", *options],
        capture_output=True,
        text=True,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    if not done.returncode:
        return ""
    said = (done.stdout + done.stderr).splitlines()
    errors = [line for line in said if "Error: " in line]
    return (errors or said[-1:])[-1].strip()[:200]


def _weights(folder: str, name: str) -> list[np.ndarray]:
    with np.load(pathlib.Path(folder) / f"{name}.npz") as arrays:
        return [arrays[key].astype(np.float64) for key in arrays.files]


def _compare(folder: str, name: str) -> dict[str, float]:
    before, one = _weights(folder, "before"), _weights(folder, "one")
    other = _weights(folder, name)
    largest = max(
        np.abs(a - b).max() / max(np.abs(a).max(), 1e-12)
        for a, b in zip(one, other, strict=True)
    )
    norm = lambda xs, ys: np.sqrt(
        sum(((x - y) ** 2).sum() for x, y in zip(xs, ys, strict=True))
    )
    return {
        "largest": float(largest),
        "of_moved": float(norm(one, other) / norm(one, before)),
    }


def main() -> None:
    """Runs all variants, and prints how far apart they ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=70)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--variant")
    parser.add_argument("--folder")
    given = parser.parse_args()
    if given.variant:
        measure(given)
        return
    summary = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in [*PLACES, *(f"keras-{n}" for n in PLACES if n != "compiled")]:
            died_of = _start(given, variant, folder)
            names = (
                [f"{variant}{i}" for i in "01"] if "workers" in variant else [variant]
            )
            for name in names:
                # Keras's optimizer has a constant rate, so its weights are others.
                keras = variant.startswith("keras-")
                found = died_of or ("ran" if keras else _compare(folder, name))
                summary[name] = found
                print(f"{name:16} {found}", flush=True)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
