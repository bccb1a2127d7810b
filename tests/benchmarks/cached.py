"""What keeping the activations of frozen blocks saves, and what it changes.

    python -m tests.benchmarks.cached [--repeats 3] [--task text] [--epochs 3]
        [--head-epochs N] [--examples N] [--length L] [--test N]
        [--caches none,memory]
    python -m tests.benchmarks.cached --memory [--limit 4] [--examples N]

Gradual unfreezing in three phases (the head, the last block, the last two) of
`epochs` epochs: MiniLM on Reuters R8 (its 5,485 training texts, cut at 128 tokens), and
ResNet-50 at half width on 2,000 pictures of Fashion-MNIST at 64 pixels, in batches of
32 with AdamW, without dropout. Each run is a process of its own, and the variants take
turns:

* `none`: `fit(cache=False)`;
* `memory`, `disk`: with `cache="memory"`, or on a disk in a folder of its own;
* `again`: a second run that finds what `disk` left;
* `float16`: in memory, in half the room.

The seconds are those of `fit`, cold: with computing what is kept, and tracing. Weights
are compared with those of `none`, variable by variable: the largest difference, over
the largest number in the variable.

The bars: `memory` at least 2 times as fast as `none` (the aim is 2.5), the accuracies
within 0.3 points, the weights within 1e-4.

Learnt: what is saved is the forward pass of the frozen blocks, and what is left is the
training of the others, backward passes above all. So the ratio depends on how long the
early phases are: with three epochs in each it is 1.8 for 2,000 texts of 64 tokens and
1.55 for the pictures; with ten for the head (`--head-epochs 10`; `tlkit.gradual` gives
it up to 30) 2.0 for the pictures, and more for texts. Filling takes half as long again
as an epoch's forward pass.

Without a cache, two runs have the same weights to the last bit. Whatever rounds
otherwise by 1e-7 moves them, and Adam makes much of it in a network of ReLUs: stages of
the ResNet were 3e-2 apart after 48 updates. So what lies at a cut inside the encoder is
computed by the very operations of training, and the weights come out to the bit.

`--memory` runs head-only and gradual on all 60,000 pictures of Fashion-MNIST, for two
epochs a phase, with `cache="auto"` as it is on a machine of `limit` GiB. The processes
may not have more private memory than that (RLIMIT_DATA; what TensorFlow only reserves
does not count). The bar: both run in 4 GiB.

Where storage.googleapis.com cannot be reached, the four files of Debian's package
dataset-fashion-mnist do as well, in ~/.keras/datasets/fashion-mnist.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import pathlib
import resource
import tempfile
import threading

import numpy as np

from tests.benchmarks.schedules import RATES, examples_of
from tests.benchmarks.timing import median, run_variants

CACHES = ("none", "memory", "disk", "again", "float16")
BATCH, SEED = 32, 0
_NUMBERS = ("examples", "test", "length", "epochs", "head_epochs")
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Job:
    """One run; its fields joined by commas are the name of the variant.

    Attributes:
        task: `"text"` or `"image"`.
        cache: One of `CACHES`, or `"auto"`.
        schedule: `"gradual"` or `"head"`.
        examples: Training examples.
        test: Test examples, at most.
        length: Tokens of a text, or pixels of a side.
        epochs: Epochs of each phase.
        head_epochs: Epochs of the first phase, the head's; `epochs` if 0.
        limit: GiB that the process may have; 0 for no limit.
        folder: For weights, and for what is kept on a disk.
    """

    task: str
    cache: str
    schedule: str
    examples: int
    test: int
    length: int
    epochs: int
    head_epochs: int = 0
    limit: float = 0.0
    folder: str = ""

    @property
    def name(self) -> str:
        return ",".join(str(value) for value in dataclasses.astuple(self))

    @classmethod
    def named(cls, name: str) -> Job:
        task, cache, schedule, *numbers, limit, folder = name.split(",", 9)
        return cls(task, cache, schedule, *map(int, numbers), float(limit), folder)

    @property
    def weights(self) -> pathlib.Path:
        return pathlib.Path(self.folder) / f"{self.cache}.npz"


TASKS = {
    "text": Job("text", "", "gradual", examples=5485, test=2189, length=128, epochs=3),
    "image": Job("image", "", "gradual", examples=2000, test=2000, length=64, epochs=3),
}


# === One run ===


def _splits(job: Job):
    import tlkit

    train, test, labels = examples_of(job.task)
    return tlkit.data.arrays(
        *(part[: job.examples] for part in train),
        labels=labels,
        validation=0,
        test_data=tuple(part[: job.test] for part in test),
        seed=SEED,
    )


def _model(job: Job, labels):
    import keras

    import tlkit

    keras.utils.set_random_seed(SEED)
    if job.task == "text":
        source = tlkit.samples.encoder("minilm", verbose=0)
        return tlkit.text_classifier(source, labels, length=job.length, dropout=0.0)
    source = tlkit.samples.encoder("resnet50", verbose=0)
    return tlkit.image_classifier(source, labels, image_size=job.length)


def _schedule(job: Job):
    import tlkit

    epochs = job.head_epochs or job.epochs
    head = tlkit.Phase("head", epochs=epochs, learning_rate=1e-2)
    if job.schedule == "head":
        return [head]
    *_, last, both = tlkit.gradual(
        blocks=2,
        epochs=job.epochs,
        learning_rate=RATES[job.task, "gradual"],
    )
    return [head, *(dataclasses.replace(p, dropout=False) for p in (last, both))]


def _cache(job: Job):
    import tlkit

    on_disk = pathlib.Path(job.folder) / "activations"
    return {
        "none": False,
        "memory": "memory",
        "disk": tlkit.ActivationCache("disk", directory=on_disk),
        "again": tlkit.ActivationCache("disk", directory=on_disk),
        "float16": tlkit.ActivationCache("memory", dtype="float16"),
        # What `auto` allows itself on a machine of that size.
        "auto": tlkit.ActivationCache(
            memory_limit=int(job.limit * GIB / 4), directory=on_disk
        ),
    }[job.cache]


def _run(job: Job) -> dict[str, float]:
    if job.limit:
        resource.setrlimit(resource.RLIMIT_DATA, (int(job.limit * GIB),) * 2)
    with _peaks() as peaks:
        import tlkit

        peaks["imported_mb"] = _memory()["RssAnon"]
        splits = _splits(job)
        model = _model(job, splits.labels)
        schedule, cache = _schedule(job), _cache(job)
        plan = tlkit.plan(model, schedule, examples=job.examples, cache=cache)
        peaks["before_mb"] = _memory()["RssAnon"]
        report = tlkit.fit(
            model,
            splits,
            schedule=schedule,
            batch_size=BATCH,
            seed=SEED,
            cache=cache,
            verbose=0,
        )
        peaks["after_mb"] = _memory()["RssAnon"]
    found = tlkit.evaluate(model, splits.test, verbose=0)
    if not job.limit:
        np.savez(job.weights, **{v.path: v.numpy() for v in model.weights})
    phases = [round(phase.train_seconds, 1) for phase in report.phases]
    kept = [p.kept for p in plan.phases if p.kept is not None]
    return {
        "accuracy": round(found.accuracy, 4),
        "seconds": round(report.seconds, 1),
        "phases": phases,
        "filling": round(report.seconds - sum(phases), 1),
        "kept_mb": [round((k.size or 0) / 1e6, 1) for k in kept],
        "where": [k.where for k in kept],
        **{name: round(value) for name, value in peaks.items()},
    }


def _memory() -> dict[str, float]:
    """MB of this process: what is resident of its own, the peak, and its limit's."""
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    wanted = ("RssAnon", "VmHWM", "VmData")
    return {name: int(fields[name].split()[0]) * 1024 / 1e6 for name in wanted}


@contextlib.contextmanager
def _peaks():
    """Gives a dict that is filled in the end with the largest memory, in MB."""
    found: dict[str, float] = {}
    highest = {"RssAnon": 0.0, "VmData": 0.0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            now = _memory()
            for name in highest:
                highest[name] = max(highest[name], now[name])

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield found
    finally:
        over.set()
        watcher.join()
        found["peak_own_mb"] = highest["RssAnon"]
        found["peak_data_mb"] = highest["VmData"]
        found["peak_mb"] = _memory()["VmHWM"]


# === All together ===


def _compare(base: Job, caches: list[str], repeats: int) -> dict:
    runs: dict[str, list[dict]] = {cache: [] for cache in caches}
    apart: dict[str, list[tuple[float, str]]] = {cache: [] for cache in caches}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            for cache in caches:
                job = dataclasses.replace(base, cache=cache, folder=folder)
                runs[cache] += run_variants(__spec__.name, [job.name], repeats=1)[
                    job.name
                ]
                if cache != "none" and "none" in runs:
                    apart[cache].append(_apart(folder, cache))
    print(
        f"\n{base.task}: {base.examples:,} examples, 3 phases of {base.epochs} epochs"
    )
    results = {}
    for cache in caches:
        results[cache] = _summary(runs, cache)
        if apart[cache]:
            results[cache]["apart"] = "{:.1e} ({})".format(*max(apart[cache]))
        print(f"{cache:8s} {results[cache]}", flush=True)
    return results


def _summary(runs: dict[str, list[dict]], cache: str) -> dict:
    found = {
        "seconds": median(runs[cache], "seconds"),
        "accuracy": median(runs[cache], "accuracy"),
        "kept_mb": runs[cache][0]["kept_mb"],
        "peak_mb": median(runs[cache], "peak_mb"),
    }
    if cache != "none" and "none" in runs:
        pairs = list(zip(runs["none"], runs[cache], strict=True))
        ratios = [one["seconds"] / other["seconds"] for one, other in pairs]
        found["times_as_fast"] = round(float(np.median(ratios)), 2)
        gained = [other["accuracy"] - one["accuracy"] for one, other in pairs]
        found["points"] = round(100 * max(gained, key=abs), 2)
    return found


def _apart(folder: str, cache: str) -> tuple[float, str]:
    """The variable that is furthest from that of `none`, and how far."""
    ours, right = (
        np.load(pathlib.Path(folder) / f"{name}.npz") for name in (cache, "none")
    )
    return max(
        (
            float(np.abs(ours[name] - right[name]).max())
            / max(float(np.abs(right[name]).max()), 1e-30),
            name,
        )
        for name in right.files
    )


def _within(limit: float, base: Job) -> dict:
    """Head-only and gradual on many pictures, in little memory."""
    results = {}
    for schedule in ("head", "gradual"):
        with tempfile.TemporaryDirectory() as folder:
            job = dataclasses.replace(
                base, cache="auto", schedule=schedule, limit=limit, folder=folder
            )
            results[schedule] = run_variants(__spec__.name, [job.name], repeats=1)[
                job.name
            ][0]
    for schedule, found in results.items():
        print(
            f"{schedule}: {base.examples:,} pictures, at most "
            f"{found['peak_mb'] / 1024:.2f} GB resident, {found['peak_own_mb']:,} MB "
            f"of it its own (the limit is {limit:g} GiB of data), of which kept: "
            f"{found['kept_mb']} MB {found['where']}"
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--task", choices=tuple(TASKS), help="only this one")
    parser.add_argument("--caches", default=",".join(CACHES), help="only these")
    for name in _NUMBERS:
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=int, help="instead of the task's own")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--limit", type=float, default=4, help="GiB, for --memory")
    parser.add_argument("--variant", help="run one and print JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(_run(Job.named(options.variant))))
        return
    given = {
        name: getattr(options, name)
        for name in _NUMBERS
        if getattr(options, name) is not None
    }
    if options.memory:
        full = dataclasses.replace(TASKS["image"], examples=60000, test=10000, epochs=2)
        print(json.dumps(_within(options.limit, dataclasses.replace(full, **given))))
        return
    tasks = (options.task,) if options.task else TASKS
    caches = options.caches.split(",")
    print(
        json.dumps(
            {
                task: _compare(
                    dataclasses.replace(TASKS[task], **given), caches, options.repeats
                )
                for task in tasks
            }
        )
    )


if __name__ == "__main__":
    main()
