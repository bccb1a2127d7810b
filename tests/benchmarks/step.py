"""What a training step costs, against the peers that can train the same network.

    python -m tests.benchmarks.step [--repeats 3] [--without torch,keras_nlp]

One ResNet-50 (full width, random weights, 224 pixels, batches of 8) and one MiniLM
(length 128, batches of 32), SGD, float32. Each variant runs in a process of its own:
the time to the first step (tracing included), the median of the next steps and the
peak memory of the process. PyTorch and keras-nlp run in environments that this script
makes beside the cache of samples.

The bars: everything trained, `opened` not behind `hub` nor `keras`; last stage only at
least 2.2 times everything; frozen forward not behind `hub`; MiniLM not behind `hub`;
with the last stage only, at most half the peak memory of everything trained, counted
above what the process held before (importing TensorFlow alone takes some 570 MB).

Learnt: calling the stretch of the network as a nested `tf.function` costs nothing
against importing its nodes into the step, since TensorFlow inlines it; reading frozen
variables with the tape's recording on costs the memory of a whole backward pass.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import numpy as np

from tests.benchmarks.environments import cache, environment
from tests.benchmarks.timing import median, peak_memory_mb, run_variants

STEPS = 6
PIXELS, IMAGES, LABELS = 224, 8, 10
LENGTH, TEXTS = 128, 32
NEEDS = {
    "torch": ["torch==2.13.0", "transformers>=4.50", "safetensors", "numpy"],
    "keras_nlp": ["tensorflow==2.21.*", "keras-nlp>=0.21", "numpy"],
}
VARIANTS = (
    "opened-resnet-all",
    "opened-resnet-last",
    "opened-resnet-forward",
    "fallback-resnet-all",
    "hub-resnet-all",
    "hub-resnet-forward",
    "keras-resnet-all",
    "torch-resnet-all",
    "opened-bert-all",
    "hub-bert-all",
    "keras_nlp-bert-all",
    "torch-bert-all",
)


def _resnet_folder() -> pathlib.Path:
    """The ResNet-50 as Keras 2 saves it, the form of most of TF Hub."""
    folder = cache() / "resnet50" / "1"
    if not folder.exists():
        import tf_keras

        network = tf_keras.applications.ResNet50(
            include_top=False, weights=None, pooling="avg", input_shape=(224, 224, 3)
        )
        network.save(folder, save_format="tf")
    return folder


def _bert_folder() -> pathlib.Path:
    import tlkit

    return tlkit.samples.encoder("minilm", verbose=0)


def _batch(network: str):
    random = np.random.default_rng(0)
    if network == "resnet":
        x = random.normal(size=(IMAGES, PIXELS, PIXELS, 3)).astype(np.float32)
        return x, random.integers(0, LABELS, IMAGES)
    ids = random.integers(1000, 30000, (TEXTS, LENGTH)).astype(np.int32)
    x = {"input_word_ids": ids, "input_mask": np.ones_like(ids)}
    x["input_type_ids"] = np.zeros_like(ids)
    return x, random.integers(0, LABELS, TEXTS)


# === TensorFlow ===


def _keras_step(keras, model, forward: bool):
    """A step of a Keras model, Keras 2 or 3, as a compiled function."""
    import tensorflow as tf

    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(1e-4)
    variables = model.trainable_variables
    keras3 = keras.__name__ == "keras"
    optimizer.build(variables)
    if forward:
        return tf.function(lambda x, y: model(x, training=False))

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = loss_of(y, model(x, training=True))
        # A variable of Keras 3 holds TensorFlow's; one of Keras 2 is TensorFlow's.
        held = [v.value if keras3 else v for v in variables]
        gradients = tape.gradient(loss, held)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return step


def _tlkit_step(network: str, mode: str, opened: bool):
    import keras

    import tlkit

    source = _resnet_folder() if network == "resnet" else _bert_folder()
    output = None if network == "resnet" else "sequence_output"
    encoder = tlkit.load_encoder(source, open_graph=opened, output=output)
    inputs = _keras_inputs(keras, network)
    features = encoder(inputs)
    if network == "bert":
        features = keras.layers.GlobalAveragePooling1D()(features)
    model = keras.Model(inputs, keras.layers.Dense(LABELS)(features))
    train = {"all": "all", "last": 1, "forward": "head"}[mode]
    tlkit.freeze(model, train=train, batch_norm="train")
    return _keras_step(keras, model, mode == "forward")


def _keras_inputs(keras, network: str):
    if network == "resnet":
        return keras.Input((PIXELS, PIXELS, 3))
    x, _ = _batch(network)
    return {name: keras.Input((LENGTH,), dtype="int32", name=name) for name in x}


def _hub_step(network: str, mode: str):
    import tf_keras

    from tests.tensorflow_hub import import_tensorflow_hub

    hub = import_tensorflow_hub()
    folder = _resnet_folder() if network == "resnet" else _bert_folder()
    layer = hub.KerasLayer(str(folder), trainable=mode != "forward")
    inputs = _keras_inputs(tf_keras, network)
    features = layer(inputs)
    if network == "bert":
        features = tf_keras.layers.GlobalAveragePooling1D()(features["sequence_output"])
    model = tf_keras.Model(inputs, tf_keras.layers.Dense(LABELS)(features))
    return _keras_step(tf_keras, model, mode == "forward")


def _native_step(network: str):
    import keras

    network = keras.applications.ResNet50(
        include_top=False, weights=None, pooling="avg", input_shape=(224, 224, 3)
    )
    outputs = keras.layers.Dense(LABELS)(network.output)
    return _keras_step(keras, keras.Model(network.input, outputs), False)


def _keras_nlp_step():
    import keras
    import keras_nlp

    backbone = keras_nlp.models.BertBackbone(
        vocabulary_size=30522,
        num_layers=6,
        num_heads=12,
        hidden_dim=384,
        intermediate_dim=1536,
        max_sequence_length=512,
    )
    features = keras.layers.GlobalAveragePooling1D()(backbone.output["sequence_output"])
    model = keras.Model(backbone.input, keras.layers.Dense(LABELS)(features))
    step = _keras_step(keras, model, False)
    names = ("token_ids", "padding_mask", "segment_ids")
    ours = ("input_word_ids", "input_mask", "input_type_ids")
    return lambda x, y: step({n: x[o] for n, o in zip(names, ours, strict=True)}, y)


def _time_tensorflow(variant: str) -> dict[str, float]:
    import tensorflow as tf

    peer, network, mode = variant.split("-")
    x, y = tf.nest.map_structure(tf.constant, _batch(network))
    before, begin = peak_memory_mb(), time.perf_counter()
    if peer in ("opened", "fallback"):
        step = _tlkit_step(network, mode, peer == "opened")
    elif peer == "hub":
        step = _hub_step(network, mode)
    elif peer == "keras":
        step = _native_step(network)
    else:
        step = _keras_nlp_step()
    return _timed(lambda: step(x, y).numpy(), begin, before)


def _timed(step, begin: float, before: float) -> dict[str, float]:
    step()
    first = time.perf_counter() - begin
    seconds = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - begin)
    return {
        "first_step_seconds": round(first, 2),
        "step_seconds": round(float(np.median(seconds)), 4),
        "peak_memory_mb": round(peak_memory_mb()),
        "memory_before_mb": round(before),
    }


# === PyTorch ===


def _time_torch(variant: str) -> dict[str, float]:
    import torch
    import transformers

    _, network, _ = variant.split("-")
    x, y = _batch(network)
    before, begin = peak_memory_mb(), time.perf_counter()
    torch.manual_seed(0)
    if network == "resnet":
        body = transformers.ResNetModel(transformers.ResNetConfig())
        given = {"pixel_values": torch.tensor(x.transpose(0, 3, 1, 2).copy())}
        pool, width = (lambda out: out.pooler_output.flatten(1)), 2048
    else:
        config = transformers.BertConfig(
            num_hidden_layers=6, hidden_size=384, intermediate_size=1536
        )
        body = transformers.BertModel(config, add_pooling_layer=False)
        given = {
            "input_ids": torch.tensor(x["input_word_ids"]).long(),
            "attention_mask": torch.tensor(x["input_mask"]),
        }
        pool, width = (lambda out: out.last_hidden_state.mean(1)), 384
    head = torch.nn.Linear(width, LABELS)
    parameters = [*body.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(parameters, 1e-4)
    labels = torch.tensor(y)
    body.train()

    def step():
        optimizer.zero_grad()
        logits = head(pool(body(**given)))
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()

    return _timed(step, begin, before)


# === All together ===


def _report(runs: dict[str, list[dict]]) -> None:
    at = {name: median(r, "step_seconds") for name, r in runs.items()}
    for name, results in runs.items():
        count = IMAGES if "resnet" in name else TEXTS
        print(
            f"{name:24s} {count / at[name]:6.2f} a second, first step "
            f"{median(results, 'first_step_seconds'):5.1f} s, peak "
            f"{median(results, 'peak_memory_mb'):5.0f} MB"
        )
    for ours, peer in (
        ("opened-resnet-all", "hub-resnet-all"),
        ("opened-resnet-all", "keras-resnet-all"),
        ("opened-resnet-all", "torch-resnet-all"),
        ("opened-resnet-all", "fallback-resnet-all"),
        ("opened-resnet-last", "opened-resnet-all"),
        ("opened-resnet-forward", "hub-resnet-forward"),
        ("opened-bert-all", "hub-bert-all"),
        ("opened-bert-all", "keras_nlp-bert-all"),
        ("opened-bert-all", "torch-bert-all"),
    ):
        if ours in at and peer in at:
            print(f"{ours} is {at[peer] / at[ours]:.2f} times as fast as {peer}")
    names = ("opened-resnet-last", "opened-resnet-all")
    if set(names) <= set(runs):
        peaks = [median(runs[name], "peak_memory_mb") for name in names]
        starts = [median(runs[name], "memory_before_mb") for name in names]
        net = (peaks[0] - starts[0]) / (peaks[1] - starts[1])
        print(
            f"peak memory with the last stage only: {net:.2f} of everything trained, "
            f"{peaks[0] / peaks[1]:.2f} with what the process held before"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without", default="", help="peers to leave out")
    parser.add_argument("--variant", help="run one and print JSON")
    options = parser.parse_args()
    if options.variant:
        timed = _time_torch if options.variant.startswith("torch") else _time_tensorflow
        print(json.dumps(timed(options.variant)))
        return
    _resnet_folder(), _bert_folder()
    skipped = options.without.split(",")
    names = [name for name in VARIANTS if name.split("-")[0] not in skipped]
    peers = {name: name.split("-")[0] for name in names}
    pythons = {
        name: environment(peer, NEEDS[peer])
        for name, peer in peers.items()
        if peer in NEEDS
    }
    _report(
        run_variants(__spec__.name, names, repeats=options.repeats, pythons=pythons)
    )


if __name__ == "__main__":
    main()
