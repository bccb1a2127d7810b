"""Whether XLA compiles the train steps of real encoders, and what that costs.

    python -m tests.benchmarks.compiled [--networks resnet50,minilm] [--train 1,all]
        [--pixels 64] [--length 32] [--batch 4]

ResNet-50 (half width) and MiniLM with a head, AdamW; trained are, in turn, the head
alone, each block alone, the last two blocks, and everything, the ResNet also with its
batch norms in training. Each runs in a process of its own. Printed are, for each:

* `traces` after five batches, which must be 1;
* `constants`: arguments that XLA takes for constants, which must be 0, or it compiles
  for every batch;
* `dynamic`: shapes with a size that only the run decides, which must be 0;
* the seconds of compiling, and milliseconds a step, compiled and not.

Learnt: a `tf.function` around a part of the forward pass makes the batch a constant, so
the encoders build their nodes in the step itself. Dropout costs a lot compiled on a
CPU, where XLA draws random numbers slowly, and only there.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from tests.benchmarks.timing import run_variants

NETWORKS = {"resnet50": ("frozen", "train"), "minilm": ("frozen",)}
STEPS = 5


def _model(network: str, size: int):
    import tlkit

    source = tlkit.samples.encoder(network, verbose=0)
    if network == "minilm":
        return tlkit.text_classifier(source, 3, length=size)
    return tlkit.image_classifier(source, 3, image_size=size)


def _batches(network: str, size: int, batch: int):
    """Five batches of inputs and labels."""
    import tensorflow as tf

    random = np.random.default_rng(0)
    for _ in range(STEPS):
        labels = tf.constant(random.integers(0, 3, batch), tf.int32)
        if network == "minilm":
            ids = random.integers(1000, 30000, (batch, size))
            arrays = {"input_word_ids": ids, "input_mask": np.ones_like(ids)}
            arrays["input_type_ids"] = np.zeros_like(ids)
            inputs = {k: tf.constant(a, tf.int32) for k, a in arrays.items()}
        else:
            pixels = random.integers(0, 256, (batch, size, size, 3))
            inputs = tf.constant(pixels, tf.uint8)
        yield inputs, labels


def _run(variant: str) -> dict:
    import tensorflow as tf

    import tlkit
    from tests.encoders.compiled_step import make_step
    from tests.encoders.hlo import read_hlo

    network, size, batch, train, batch_norm = variant.split(":")
    model = _model(network, int(size))
    batches = list(_batches(network, int(size), int(batch)))
    tlkit.freeze(model, train=_choice(train), batch_norm=batch_norm)
    variables, inputs = model.trainable_variables, batches[0][0]
    plain, compiled = (
        make_step(model, variables, inputs, jit_compile=jit) for jit in (False, True)
    )
    _, uncompiled_ms = _time(plain, batches)
    try:
        seconds, compiled_ms = _time(compiled, batches)
    except tf.errors.OpError as error:
        return {"why_not": tlkit.encoders.why_not_compiled(error) or str(error)}
    hlo = read_hlo(compiled, *batches[0])
    return {
        "why_not": None,
        "compile_seconds": seconds,
        "compiled_ms": compiled_ms,
        "uncompiled_ms": uncompiled_ms,
        "traces": compiled.experimental_get_tracing_count(),
        "constants": hlo.constants,
        "dynamic": len(hlo.dynamic),
    }


def _time(step, batches) -> tuple[float, float]:
    """Seconds of the first call without its trace; the later calls' milliseconds."""
    step.get_concrete_function()
    seconds = []
    for batch in (batches[0], *batches):
        begin = time.perf_counter()
        step(*batch)[0].numpy()
        seconds.append(time.perf_counter() - begin)
    first, *later = seconds
    return round(first, 1), round(1e3 * float(np.median(later)), 1)


def _choice(train: str) -> str | int | list[str]:
    if train in ("head", "all"):
        return train
    return int(train) if train.isdigit() else train.split("+")


def _choices(network: str, size: int) -> list[str]:
    import tlkit

    encoder = next(
        layer
        for layer in _model(network, size).layers
        if isinstance(layer, tlkit.Encoder)
    )
    blocks = [block.name for block in encoder.blocks if block.learnable]
    return ["head", *blocks, "2", "all"]


def _report(found: dict[str, dict]) -> None:
    print(
        f"{'trained':40s} {'traces':>6s} {'constants':>9s} {'dynamic':>7s} "
        f"{'compiling':>9s} {'compiled':>9s} {'uncompiled':>10s}"
    )
    for name, figures in found.items():
        if figures["why_not"]:
            print(f"{name:40s} is not compiled: {figures['why_not']}")
            continue
        print(
            f"{name:40s} {figures['traces']:6d} {figures['constants']:9d} "
            f"{figures['dynamic']:7d} {figures['compile_seconds']:7.1f} s "
            f"{figures['compiled_ms']:6.0f} ms {figures['uncompiled_ms']:7.0f} ms"
        )
    good = all(
        (f["why_not"], f.get("traces"), f.get("constants"), f.get("dynamic"))
        == (None, 1, 0, 0)
        for f in found.values()
    )
    print(json.dumps({"all_static": good, "variants": found}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--train", help='only these: "head", "2", "stage3", "all", …')
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--variant", help="run one and print JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(_run(options.variant)))
        return
    names = []
    for network in options.networks.split(","):
        size = options.length if network == "minilm" else options.pixels
        wanted = options.train.split(",") if options.train else None
        for batch_norm in NETWORKS[network]:
            names += [
                f"{network}:{size}:{options.batch}:{train}:{batch_norm}"
                for train in wanted or _choices(network, size)
                if batch_norm == "frozen" or train != "head"
            ]
    runs = run_variants(__spec__.name, names, repeats=1)
    _report({name: runs[name][0] for name in names})


if __name__ == "__main__":
    main()
