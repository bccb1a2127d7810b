"""What a pass of a frozen encoder costs, against ONNX Runtime on the same network.

    python -m tests.benchmarks.forward [--repeats 3] [--batch 8] [--network resnet]

ResNet-50 (full width, random weights, 224 pixels, batches of 8) and MiniLM (length
128, batches of 32), float32. Variants, each in a process of its own:

* `hub`: `hub.KerasLayer`, the restored function, in a `tf.function`;
* `constants`: its variables folded to constants by TensorFlow;
* `plain`: the opened encoder, its variables read in each call;
* `folded`: `FrozenForward` of the opened encoder;
* `onnx`: ONNX Runtime, in an environment that this script makes beside the cache of
  samples, on the network with the same weights.

The bar: `folded` at least 0.8 of ONNX Runtime's images a second on ResNet-50.

Each run prints CPU seconds, too, which a busy machine changes less; those of ONNX
Runtime hold the time that its threads wait in a loop.

Learnt: folded, all 53 convolutions of a ResNet-50 become one op each with bias,
residual sum and activation, and keep their kernels laid out; batch norms and sums then
pass no memory of their own. Constants cost memory while TensorFlow optimizes the graph:
a multiple of the weights. It also makes one op of a layer norm with constants over an
axis counted from the front, and that op forgets the epsilon.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import numpy as np

from tests.benchmarks.environments import cache, environment
from tests.benchmarks.timing import median, peak_memory_mb, run_variants

RUNS, PIXELS, LENGTH = 12, 224, 128
BATCHES = {"resnet": 8, "minilm": 32}
NEEDS = ("onnxruntime>=1.20", "numpy", "platformdirs")


def _saved(network: str) -> pathlib.Path:
    """The SavedModel of a network."""
    if network == "resnet":
        return cache() / "forward-resnet" / "saved_model"
    import tlkit

    return tlkit.samples.encoder("minilm", verbose=0)


def _converted(network: str) -> pathlib.Path:
    """The same network as an ONNX file."""
    return cache() / f"forward-{network}" / "network.onnx"


def _prepare(network: str) -> None:
    """Makes the files where they are missing."""
    converted = _converted(network)
    if not converted.exists():
        converted.parent.mkdir(exist_ok=True)
        write = _write_resnet if network == "resnet" else _write_minilm
        write(_saved(network), converted)


def _write_resnet(saved: pathlib.Path, converted: pathlib.Path) -> None:
    import tf_keras

    from tests.benchmarks.onnx_networks import write_resnet

    tf_keras.utils.set_random_seed(0)
    network = tf_keras.applications.ResNet50(
        include_top=False, weights=None, pooling="avg", input_shape=(PIXELS, PIXELS, 3)
    )
    random = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization):
            size = layer.gamma.shape
            gamma, variance = (random.uniform(0.5, 1.5, size) for _ in range(2))
            beta, mean = (random.normal(0, 0.2, size) for _ in range(2))
            layer.set_weights([gamma, beta, mean, variance])
    network.save(saved, save_format="tf")
    write_resnet(network, converted)


def _write_minilm(saved: pathlib.Path, converted: pathlib.Path) -> None:
    import tlkit
    from tests.benchmarks.onnx_networks import write_bert

    # Its weights have the names of the file, in the paths of its blocks.
    encoder = tlkit.load_encoder(saved)
    specs, weights = encoder._specs, encoder._weights_of
    arrays = {spec.name: weights[i].numpy() for i, spec in enumerate(specs)}
    write_bert(arrays, converted)


def _batch(network: str, size: int):
    random = np.random.default_rng(0)
    if network == "resnet":
        return random.normal(size=(size, PIXELS, PIXELS, 3)).astype(np.float32)
    ids = random.integers(1000, 30000, (size, LENGTH)).astype(np.int32)
    lengths = random.integers(LENGTH // 2, LENGTH + 1, (size, 1))
    mask = (np.arange(LENGTH) < lengths).astype(np.int32)
    names = ("input_word_ids", "input_mask", "input_type_ids")
    return dict(zip(names, (ids, mask, np.zeros_like(ids)), strict=True))


# === The variants: each gives a function of no arguments that gives an array ===


def _hub(saved: pathlib.Path, batch):
    import tensorflow as tf

    from tests.tensorflow_hub import import_tensorflow_hub

    layer = import_tensorflow_hub().KerasLayer(str(saved), trainable=False)
    return _called(tf.function(lambda x: _main(layer(x, training=False))), batch)


def _constants(saved: pathlib.Path, batch):
    import tensorflow as tf
    from tensorflow.python.framework import convert_to_constants

    module = tf.saved_model.load(str(saved))
    specs = tf.nest.map_structure(
        lambda x: tf.TensorSpec((None, *x.shape[1:]), x.dtype), batch
    )
    function = tf.function(lambda x: _main(module(x, training=False)))
    concrete = function.get_concrete_function(specs)
    fixed = convert_to_constants.convert_variables_to_constants_v2(concrete)
    tensors = [tf.constant(x) for x in tf.nest.flatten(batch)]
    return lambda: fixed(*tensors)[0].numpy()


def _plain(saved: pathlib.Path, batch):
    import tensorflow as tf

    encoder = _encoder(saved)
    return _called(tf.function(lambda x: encoder(x, training=False)), batch)


def _folded(saved: pathlib.Path, batch):
    from tlkit.encoders.inference.forward_pass import FrozenForward

    forward = FrozenForward(_encoder(saved))
    return _called(lambda x: forward(x).outputs, batch)


def _encoder(saved: pathlib.Path):
    import tlkit

    output = "sequence_output" if "minilm" in str(saved) else None
    return tlkit.load_encoder(saved, output=output)


def _main(outputs):
    return outputs["sequence_output"] if isinstance(outputs, dict) else outputs


def _called(function, batch):
    import tensorflow as tf

    tensors = tf.nest.map_structure(tf.constant, batch)
    return lambda: function(tensors).numpy()


def _onnx(converted: pathlib.Path, batch):
    import onnxruntime

    session = onnxruntime.InferenceSession(converted)
    given = batch if isinstance(batch, dict) else {"images": batch}
    return lambda: session.run(None, given)[0]


BUILDERS = {
    "hub": _hub,
    "constants": _constants,
    "plain": _plain,
    "folded": _folded,
    "onnx": _onnx,
}


def _time(variant: str) -> dict[str, float]:
    kind, network, size = variant.split("-")
    batch = _batch(network, int(size))
    source = _converted(network) if kind == "onnx" else _saved(network)
    begin = time.perf_counter()
    run = BUILDERS[kind](source, batch)
    found = run()
    first = time.perf_counter() - begin
    run()
    seconds, worked = [], time.process_time()
    for _ in range(RUNS):
        begin = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - begin)
    worked = (time.process_time() - worked) / RUNS
    return {
        "first_seconds": round(first, 2),
        "seconds": round(float(np.median(seconds)), 4),
        "cpu_seconds": round(worked, 4),
        "peak_memory_mb": round(peak_memory_mb()),
        "sum": float(np.abs(found).sum()),
    }


def _report(runs: dict[str, list[dict]], network: str) -> None:
    at = {name.split("-")[0]: median(r, "seconds") for name, r in runs.items()}
    for name, results in runs.items():
        count = int(name.split("-")[-1])
        print(
            f"{name:20s} {count / median(results, 'seconds'):6.2f} a second, "
            f"first {median(results, 'first_seconds'):4.1f} s, peak "
            f"{median(results, 'peak_memory_mb'):5.0f} MB"
        )
    sums = [run["sum"] for results in runs.values() for run in results]
    assert max(sums) < 1.0001 * min(sums), "not the same network"
    for kind in at:
        print(f"{network}: {kind} / onnx, speed: {at['onnx'] / at[kind]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--network", choices=sorted(BATCHES))
    parser.add_argument("--batch", type=int, help="of ResNet-50")
    parser.add_argument("--variant", help="run one and print JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(_time(options.variant)))
        return
    sizes = BATCHES | ({"resnet": options.batch} if options.batch else {})
    for network in [options.network] if options.network else sizes:
        _prepare(network)
        names = [f"{kind}-{network}-{sizes[network]}" for kind in BUILDERS]
        peer = environment("onnxruntime", NEEDS)
        runs = run_variants(
            __spec__.name,
            names,
            repeats=options.repeats,
            pythons={name: peer for name in names if name.startswith("onnx")},
        )
        _report(runs, network)


if __name__ == "__main__":
    main()
