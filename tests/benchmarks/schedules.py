"""Whether `gradual` earns its phases, against training everything from the first step.

    python -m tests.benchmarks.schedules [--seeds 5] [--task text] [--examples N]
        [--length L] [--test N] [--epochs N] [--batch-norm train]
        [--rate WAY=RATE] [--search RATE,RATE]

MiniLM on Reuters R8 (its 5,485 training texts, cut at 128 tokens) and ResNet-50 at half
width on 2,000 pictures of Fashion-MNIST at 64 pixels, in batches of 32 with AdamW. Each
run is a process of its own; for each seed the two ways take turns:

* `gradual`: `tlkit.gradual(blocks=3)` without patience; the head and each of the three
  phases behind it have a quarter of the epochs;
* `all`: `Phase("all", warmup=0.1)`, a cosine, for as many epochs in total.

The seed decides the head, the order of the examples and dropout; the examples are the
same for all, and so is the test split: R8's own, and the first 2,000 pictures of
Fashion-MNIST's. Batch norms keep their published statistics in both: a phase of some
hundred steps is too short for new ones to settle. The seconds are those of `fit`, cold:
with features and tracing.

The bar: the median accuracy of `gradual` at least that of `all`, in less time.

Rates: `all` has a usual one on texts, 5e-5, the highest of those that BERT's authors
tried (arXiv 1810.04805, appendix A.3), since MiniLM is smaller than their networks. On
pictures it has 3e-4, a usual one for AdamW on a ResNet. `gradual` has its own default
on texts, and on pictures 1e-3, with which its last three blocks have 3.8e-4, 1.5e-4 and
5.7e-5. `--search 2e-5,5e-5,1e-4` checks that: it tries each rate with both ways on a
seed that is not among the others, with a tenth of the training examples held out to
measure with, and never looks at the test split. `--rate all=1e-4` sets one.

Learnt: on 2,000 texts of 64 tokens `all` ends at 0.827 (median of five seeds), and at
0.835 with the rate of `gradual` (one seed): it lacks updates rather than a rate, which
`gradual` saves by a head that has settled before.

Keras fetches Fashion-MNIST from storage.googleapis.com. Where that cannot be reached,
the four files of Debian's package dataset-fashion-mnist do as well, in
~/.keras/datasets/fashion-mnist.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics

import numpy as np

from tests.benchmarks.timing import run_variants

WAYS = ("gradual", "all")
BATCH, BLOCKS, SEARCH_SEED = 32, 3, 1000


@dataclasses.dataclass(frozen=True)
class Job:
    """One run; its fields joined by commas are the name of the variant.

    Attributes:
        task: `"text"` or `"image"`.
        way: `"gradual"` or `"all"`.
        seed: Decides the head, the order and dropout.
        examples: Training examples.
        test: Test examples, at most.
        length: Tokens of a text, or pixels of a side.
        epochs: Epochs in total.
        rate: The highest learning rate.
        batch_norm: What the batch norms of trained blocks do.
        split: What to measure with, `"test"` or `"validation"`.
    """

    task: str
    way: str
    seed: int
    examples: int
    test: int
    length: int
    epochs: int
    rate: float
    batch_norm: str = "frozen"
    split: str = "test"

    @property
    def name(self) -> str:
        return ",".join(str(value) for value in dataclasses.astuple(self))

    @classmethod
    def named(cls, name: str) -> Job:
        task, way, *numbers, rate, batch_norm, split = name.split(",")
        return cls(task, way, *map(int, numbers), float(rate), batch_norm, split)


TASKS = {
    "text": Job("text", "", 0, examples=5485, test=2189, length=128, epochs=4, rate=0),
    "image": Job("image", "", 0, examples=2000, test=2000, length=64, epochs=8, rate=0),
}
RATES = {
    ("text", "gradual"): 2e-4,
    ("text", "all"): 5e-5,
    ("image", "gradual"): 1e-3,
    ("image", "all"): 3e-4,
}


# === One run ===


def examples_of(task: str) -> tuple:
    """R8 for `"text"`, Fashion-MNIST for `"image"`: train, test and the labels."""
    if task == "text":
        import tlkit

        found = tlkit.samples.data("reuters-r8", verbose=0)
        labels = sorted(set(found.train_labels))
        train = found.train_texts, [labels.index(x) for x in found.train_labels]
        test = found.test_texts, [labels.index(x) for x in found.test_labels]
    else:
        import keras

        train, test = keras.datasets.fashion_mnist.load_data()
        labels = [str(i) for i in range(10)]
    return train, test, labels


def _splits(job: Job):
    import tlkit

    train, test, labels = examples_of(job.task)
    return tlkit.data.arrays(
        *_some(*train, job.examples),
        labels=labels,
        validation=0.1 if job.split == "validation" else 0,
        test_data=tuple(part[: job.test] for part in test),
        seed=0,
    )


def _some(x, y, count: int):
    """So many examples, the same ones each time, with one of each class at least."""
    y = np.asarray(y)
    order = np.random.default_rng(0).permutation(len(y))
    _, firsts = np.unique(y[order], return_index=True)
    chosen = np.concatenate([order[firsts], np.delete(order, firsts)])[:count]
    if isinstance(x, list):
        return [x[i] for i in chosen], y[chosen]
    return x[chosen], y[chosen]


def _model(job: Job, labels):
    import tlkit

    if job.task == "text":
        source = tlkit.samples.encoder("minilm", verbose=0)
        return tlkit.text_classifier(source, labels, length=job.length)
    source = tlkit.samples.encoder("resnet50", verbose=0)
    return tlkit.image_classifier(source, labels, image_size=job.length)


def _schedule(job: Job):
    import tlkit

    options = {"learning_rate": job.rate, "warmup": 0.1}
    options["batch_norm"] = job.batch_norm
    if job.way == "all":
        return tlkit.Phase("all", epochs=job.epochs, **options)
    each = job.epochs // (BLOCKS + 1)
    return tlkit.gradual(
        blocks=BLOCKS,
        head_epochs=job.epochs - BLOCKS * each,
        epochs=each,
        head_learning_rate=1e-2,  # it has little time
        head_patience=None,
        **options,
    )


def _run(job: Job) -> dict[str, float]:
    import keras

    import tlkit

    splits = _splits(job)
    keras.utils.set_random_seed(job.seed)
    model = _model(job, splits.labels)
    report = tlkit.fit(
        model,
        dataclasses.replace(splits, validation=None),
        schedule=_schedule(job),
        batch_size=BATCH,
        seed=job.seed,
        verbose=0,
    )
    found = tlkit.evaluate(model, getattr(splits, job.split), verbose=0)
    return {
        "accuracy": round(found.accuracy, 4),
        "seconds": round(report.seconds, 1),
        "epochs": sum(phase.epochs for phase in report.phases),
    }


# === All together ===


def _compare(base: Job, rates: dict[str, float], seeds: int) -> dict:
    """Runs both ways with each seed, prints the table and gives the medians."""
    runs: dict[str, list[dict]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        for way in WAYS:
            job = dataclasses.replace(base, way=way, seed=seed, rate=rates[way])
            runs[way] += _figures(job)
    ours, theirs = runs["gradual"], runs["all"]
    print(f"\n{base.task}: {base.examples:,} examples, {base.epochs} epochs")
    print(f"seed  {'gradual':>19}{'all':>19}")
    print("      " + 2 * "  accuracy  seconds")
    for seed, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        print(f"{seed:<6}{_cells(one)}{_cells(other)}")
    medians = {way: _medians(runs[way]) for way in WAYS}
    print(f"median{_cells(medians['gradual'])}{_cells(medians['all'])}")
    ratio = statistics.median(
        one["seconds"] / other["seconds"]
        for one, other in zip(ours, theirs, strict=True)
    )
    gained = medians["gradual"]["accuracy"] - medians["all"]["accuracy"]
    print(
        f"gradual: {gained:+.4f} of accuracy (at least 0) in {ratio:.2f} of the time "
        "(less than 1)\n",
        flush=True,
    )
    return medians | {"time_ratio": round(ratio, 3), "gained": round(gained, 4)}


def _figures(job: Job) -> list[dict]:
    return run_variants(__spec__.name, [job.name], repeats=1)[job.name]


def _cells(figures: dict) -> str:
    return f"  {figures['accuracy']:8.4f}  {figures['seconds']:7.1f}"


def _medians(runs: list[dict]) -> dict[str, float]:
    keys = ("accuracy", "seconds")
    return {key: statistics.median(run[key] for run in runs) for key in keys}


def _search(base: Job, rates: list[float]) -> dict:
    """Tries rates on held out training examples."""
    found: dict[str, dict[str, float]] = {}
    for way in WAYS:
        found[way] = {}
        for rate in rates:
            job = dataclasses.replace(
                base, way=way, seed=SEARCH_SEED, rate=rate, split="validation"
            )
            found[way][f"{rate:g}"] = _figures(job)[0]["accuracy"]
        best = max(found[way], key=found[way].get)
        print(f"{base.task}, {way}: {found[way]}, best {best}", flush=True)
    return found


def _rate(text: str) -> tuple[str, float]:
    way, rate = text.split("=")
    if way not in WAYS:
        raise argparse.ArgumentTypeError(f"the ways are {', '.join(WAYS)}; got {way}")
    return way, float(rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--task", choices=tuple(TASKS), help="only this one")
    for name in ("examples", "test", "length", "epochs"):
        parser.add_argument(f"--{name}", type=int, help="instead of the task's own")
    parser.add_argument("--batch-norm", choices=("frozen", "train"))
    parser.add_argument(
        "--rate", type=_rate, action="append", default=[], help="such as all=1e-4"
    )
    parser.add_argument("--search", help="rates to try, such as 5e-5,1e-4")
    parser.add_argument("--variant", help="run one and print JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(_run(Job.named(options.variant))))
        return
    if options.epochs is not None and options.epochs <= BLOCKS:
        parser.error(f"--epochs must be {BLOCKS + 1} or more: one for each phase")
    results = {}
    for task in (options.task,) if options.task else TASKS:
        given = {
            name: getattr(options, name)
            for name in ("examples", "test", "length", "epochs", "batch_norm")
            if getattr(options, name) is not None
        }
        base = dataclasses.replace(TASKS[task], **given)
        if options.search:
            tried = [float(rate) for rate in options.search.split(",")]
            results[task] = _search(base, tried)
            continue
        rates = {way: RATES[task, way] for way in WAYS}
        rates |= {way: float(rate) for way, rate in options.rate}
        results[task] = _compare(base, rates, options.seeds)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
