"""What fine-tuning a whole text encoder costs, against transformers and hub.

    python -m tests.benchmarks.texts [--repeats 3] [--examples 1024] [--length 128]

MiniLM (6 layers, 384 wide), everything trained with AdamW in batches of 32, on Reuters
R8 with texts of up to 128 tokens. Variants, each in a process of its own, in turn:

* `tlkit`: `tlkit.fit`, which tokenises once and pads to a few lengths;
* `transformers`: its Trainer with dynamic padding (`DataCollatorWithPadding`), the same
  network with random weights, and the same ids ready-made;
* `hub`: `hub.KerasLayer` in tf_keras, `fit` on ids that are all padded to the length.

What counts is the second epoch, from its begin to its end as the callbacks of each
see it: all graphs are traced then, and everything that is done once is done.

The bar: `tlkit` at least 1.25 times as many examples a second as `transformers`, and at
least 1.3 times as many as `hub`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import numpy as np

from tests.benchmarks.environments import TRANSFORMERS, cache, environment
from tests.benchmarks.timing import median, run_variants

VARIANTS = ("tlkit", "transformers", "hub")
BATCH, EPOCHS, LABELS = 32, 2, 8


class Clock:
    """Seconds of each epoch; its methods are called by the callbacks of all peers."""

    def __init__(self):
        self.seconds: list[float] = []
        self._begin = 0.0

    def begin(self) -> None:
        self._begin = time.perf_counter()

    def end(self) -> None:
        self.seconds.append(time.perf_counter() - self._begin)


def _read(count: int):
    """The texts, drawn from all of the training split, and their labels."""
    import tlkit

    found = tlkit.samples.data("reuters-r8", verbose=0)
    names = sorted(set(found.train_labels))
    size = len(found.train_texts)
    rows = np.random.default_rng(0).permutation(size)[:count]
    texts = [found.train_texts[row] for row in rows]
    return texts, np.array([names.index(found.train_labels[row]) for row in rows])


def _write_ids(count: int, length: int) -> None:
    """Writes the ids that tlkit makes of the texts, for the peers."""
    import tensorflow as tf

    import tlkit
    from tlkit import models

    texts, labels = _read(count)
    source = tlkit.samples.encoder("minilm", verbose=0)
    model = tlkit.text_classifier(source, LABELS, length=length)
    made = models.preprocessing(model, fixed_length=True)(tf.constant(texts))
    ids, mask = made["input_word_ids"].numpy(), made["input_mask"].numpy()
    np.savez(_ids_file(count, length), ids=ids, mask=mask, labels=labels)


def _ids_file(count: int, length: int):
    return cache() / f"r8-{count}-{length}.npz"


# === Variants ===


def _time_tlkit(count: int, length: int, clock: Clock) -> None:
    import keras

    import tlkit

    texts, labels = _read(count)
    source = tlkit.samples.encoder("minilm", verbose=0)
    model = tlkit.text_classifier(source, LABELS, length=length)
    callback = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: clock.begin(), on_epoch_end=lambda *_: clock.end()
    )
    schedule = tlkit.Phase("all", epochs=EPOCHS, learning_rate=5e-5)
    options = {"schedule": schedule, "callbacks": [callback], "batch_size": BATCH}
    tlkit.fit(model, texts, labels, verbose=0, **options)


def _time_hub(count: int, length: int, clock: Clock) -> None:
    import tf_keras

    import tlkit
    from tests.tensorflow_hub import import_tensorflow_hub

    made = np.load(_ids_file(count, length))
    ids, mask = made["ids"], made["mask"]
    x = {"input_word_ids": ids, "input_mask": mask, "input_type_ids": ids * 0}
    given = {k: tf_keras.Input((length,), dtype="int32", name=k) for k in x}
    source = tlkit.samples.encoder("minilm", verbose=0)
    outputs = import_tensorflow_hub().KerasLayer(str(source), trainable=True)(given)
    features = outputs["sequence_output"][:, 0]
    model = tf_keras.Model(given, tf_keras.layers.Dense(LABELS)(features))
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.AdamW(5e-5), loss, metrics=["accuracy"])
    callback = tf_keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: clock.begin(), on_epoch_end=lambda *_: clock.end()
    )
    options = {"epochs": EPOCHS, "batch_size": BATCH, "callbacks": [callback]}
    model.fit(x, made["labels"], verbose=0, **options)


def _time_transformers(count: int, length: int, clock: Clock) -> None:
    import transformers

    made = np.load(_ids_file(count, length))
    rows = [
        {"input_ids": ids[: mask.sum()].tolist(), "labels": int(label)}
        for ids, mask, label in zip(
            made["ids"], made["mask"], made["labels"], strict=True
        )
    ]
    config = transformers.BertConfig(
        num_hidden_layers=6,
        hidden_size=384,
        intermediate_size=1536,
        num_labels=LABELS,
    )
    model = transformers.BertForSequenceClassification(config)

    class Callback(transformers.TrainerCallback):
        def on_epoch_begin(self, *_, **__):
            clock.begin()

        def on_epoch_end(self, *_, **__):
            clock.end()

    with tempfile.TemporaryDirectory() as folder:
        transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=folder,
                num_train_epochs=EPOCHS,
                per_device_train_batch_size=BATCH,
                learning_rate=5e-5,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
            ),
            train_dataset=rows,
            data_collator=_collator(transformers, folder),
            callbacks=[Callback()],
        ).train()


def _collator(transformers, folder: str):
    """Pads each batch to its longest row, with the tokenizer of an empty vocabulary."""
    with open(f"{folder}/vocab.txt", "w") as file:
        file.write("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    tokenizer = transformers.BertTokenizer(f"{folder}/vocab.txt")
    return transformers.DataCollatorWithPadding(tokenizer)


# === All together ===


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--examples", type=int, default=1024)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--variant", help="run one, as name-examples-length")
    options = parser.parse_args()
    if options.variant:
        name, count, length = options.variant.split("-")
        clock = Clock()
        globals()[f"_time_{name}"](int(count), int(length), clock)
        rate = int(count) / clock.seconds[-1]
        first, last = (round(clock.seconds[i], 2) for i in (0, -1))
        figures = {"examples_a_second": round(rate, 2)}
        print(json.dumps(figures | {"first_epoch": first, "last_epoch": last}))
        return
    _write_ids(options.examples, options.length)
    peer = environment("transformers", TRANSFORMERS)
    names = [f"{name}-{options.examples}-{options.length}" for name in VARIANTS]
    runs = run_variants(
        __spec__.name,
        names,
        repeats=options.repeats,
        pythons={name: peer for name in names if name.startswith("transformers")},
    )
    ours, torch, hub = (median(runs[name], "examples_a_second") for name in names)
    print(
        f"examples a second: tlkit {ours:.1f}; transformers {torch:.1f}, tlkit "
        f"{ours / torch:.2f} times it (at least 1.25); hub.KerasLayer {hub:.1f}, tlkit "
        f"{ours / hub:.2f} times it (at least 1.3)"
    )


if __name__ == "__main__":
    main()
