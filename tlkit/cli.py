"""The command line: each command is one call into the package."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .errors import DataError, TlkitError
from .files import atomic_file, user_path

_SCHEDULES = ("head_only", "head_then_all", "gradual")
_CACHES = ("auto", "memory", "disk", "off")
_TRUNCATIONS = ("head", "tail", "head+tail")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
_SHARDS = "shards.json"
_OFFLINE = "TLKIT_OFFLINE"
# Examples of the validation split, with which `export` checks the export.
_EXAMPLES_FILE = "validation_rows.tfrecord"


def main(arguments: list[str] | None = None) -> int:
    """Runs a command and returns its exit status.

    Args:
        arguments: The arguments after `tlkit`; those of the process if `None`.

    Returns:
        0; 1 after a `TlkitError`; 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        with _offline(options.offline):
            figures = options.run(options)
    except TlkitError as error:
        print(f"tlkit {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        hint = " Type the same with --resume to continue." * (options.command == "fit")
        print(f"tlkit {options.command}: stopped.{hint}", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(figures))
    return 0


@contextlib.contextmanager
def _offline(offline: bool) -> Iterator[None]:
    """Forbids the network to a command and to the processes that it starts."""
    before = os.environ.get(_OFFLINE)
    if offline:
        os.environ[_OFFLINE] = "1"
    try:
        yield
    finally:
        if offline and before is None:
            del os.environ[_OFFLINE]
        elif offline:
            os.environ[_OFFLINE] = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tlkit",
        description="Fine-tune any published TensorFlow encoder, block by block, and "
        "serve the result.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    add = _command(commands, "inspect", _inspect, "describe an encoder")
    add("source", help="folder, catalog name or URL")
    _add_trust(add)

    add = _command(commands, "fetch", _fetch, "download an encoder to a folder")
    add("source", help="folder, catalog name, URL or bundle")
    add("directory", help="new folder, or with --bundle a new .tar")
    add("--bundle", action="store_true", help="one file, for a machine without network")

    _add_fit(_command(commands, "fit", _fit, "train a classifier"))

    add = _command(commands, "evaluate", _evaluate, "evaluate a trained model")
    add("directory", help="folder of the run")
    _add_data(add)
    _add_trust(add)

    add = _command(commands, "predict", _predict, "label texts or images")
    add("directory", help="folder of the run")
    add("examples", nargs="+", help="texts, the two texts of each pair, or image files")
    _add_trust(add)

    add = _command(commands, "export", _export, "write a model for TF Serving")
    add("directory", help="folder of the run")
    add("destination", help="folder, such as saved_models/flowers")
    add("--version", type=int, help="default: the next free one")
    _add_trust(add)
    add("--top", type=int, help="number of labels in top_labels")
    add("--tolerance", type=float, default=1e-5, help="largest difference of a score")
    add("--no-check", action="store_true", help="do not compare the predictions")

    add = _command(commands, "demo", _demo, "train, evaluate and export on real data")
    add("kind", choices=("text", "image"))
    add("--directory", default="runs/demo", help="folder of the run")
    add("--export", default="saved_models/demo", help="folder of the export")
    return parser


def _add_fit(add: Callable[..., Any]) -> None:
    add("source", help="the encoder: folder, catalog name or URL")
    _add_trust(add)
    _add_data(add)
    add("--directory", required=True, help="folder of the run")
    add("--schedule", choices=_SCHEDULES, default="head_then_all")
    add("--batch-size", type=int, default=32)
    add("--image-size", type=int, help="in pixels; default: the encoder's")
    add("--pixels", help="unit, symmetric, byte, caffe, torch; default: the encoder's")
    add("--augment", action="store_true", help="crop and flip images at random")
    add("--length", type=int, default=128, help="tokens per text")
    add("--truncation", choices=_TRUNCATIONS, default="head", help="of longer texts")
    add("--windows", type=int, default=1, help="maximum number of windows per text")
    add("--overlap", type=int, default=0, help="tokens shared by adjacent windows")
    add("--strategy", help="cpu, gpu, mirrored, multi_worker, tpu")
    add("--resume", action="store_true", help="continue from the last checkpoint")
    add("--gradient-accumulation-steps", type=int, help="batches per update")
    add("--jit-compile", action="store_true", help="compile with XLA")
    add("--cache", choices=_CACHES, default="auto", help="for outputs of frozen blocks")


def _command(commands, name: str, run, summary: str) -> Callable[..., Any]:
    """Adds a command and returns the function that adds its arguments."""
    command = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    add = command.add_argument
    add("--json", action="store_true", help="print one line of JSON at the end")
    add("--offline", action="store_true", help="use no network, as TLKIT_OFFLINE=1")
    return add


def _add_trust(add: Callable[..., Any]) -> None:
    add(
        "--trust",
        action="store_true",
        help="accept an encoder that reads or writes files, connects or runs Python",
    )


def _add_data(add: Callable[..., Any]) -> None:
    add(
        "data",
        help="folder of class folders (images or .txt) or of shards, .csv file, "
        "sample:NAME such as sample:reuters-r8, or tfds:NAME, already prepared",
    )
    add("--text", default="text", help="column of a .csv file; for pairs FIRST,SECOND")
    add("--label", default="label", help="column of a .csv file")
    fraction = "fraction, for data without such a split"
    add("--validation", type=float, default=0.1, help=fraction)
    add("--test", type=float, default=0.1, help=fraction)
    add("--seed", type=int, default=0)


def _splits(options) -> Any:
    """Loads the data that the options name."""
    from . import data, samples

    kwargs = {"validation": options.validation, "test": options.test}
    kwargs["seed"] = options.seed
    if options.data.startswith("sample:"):
        return samples.splits(options.data.removeprefix("sample:"), **kwargs)
    if options.data.startswith("tfds:"):
        return data.tfds(options.data.removeprefix("tfds:"))
    path = user_path(options.data)
    if (path / _SHARDS).is_file():
        return data.tfrecords(path)
    if path.is_dir():
        files = (f.suffix.lower() for f in path.rglob("*") if f.is_file())
        has_images = any(suffix in _IMAGE_SUFFIXES for suffix in files)
        load = data.image_folder if has_images else data.text_folder
        return load(path, **kwargs)
    columns = options.text.split(",")
    text = columns if columns[1:] else options.text
    return data.text_csv(path, text=text, label=options.label, **kwargs)


def _model(directory: str, *, trust: bool = False):
    import keras

    path = user_path(directory) / "model.keras"
    if not path.is_file():
        raise DataError(
            f"There is no trained model in {directory} (no model.keras). Train one: "
            f"tlkit fit SOURCE DATA --directory {directory}"
        )
    try:
        return keras.saving.load_model(path, safe_mode=not trust)
    except ValueError as error:  # Keras wraps the errors of layers
        raise DataError(f"The model {path} cannot be loaded: {error}") from error


def _save(model, directory: str) -> None:
    path = user_path(directory) / "model.keras"
    # Keras writes in place: a crash would leave an incomplete file.
    with atomic_file(path) as temporary:
        model.save(temporary)


def _inspect(options) -> dict[str, Any]:
    from . import inspect

    return inspect(options.source, trust=options.trust).to_json()


def _fetch(options) -> dict[str, Any]:
    from . import sources

    path = sources.fetch(options.source, options.directory, bundle=options.bundle)
    lock = sources.read_lock(path)
    count = f"{len(lock.files)} files, {lock.size / 1e6:,.1f} MB"
    print(f"{path}: {count} from {lock.address}, {lock.licence or 'licence unknown'}")
    return {"path": str(path)} | json.loads(lock.to_json())


def _fit(options) -> dict[str, Any]:
    import tlkit

    from .serving import save_examples, take_examples

    splits = _splits(options)
    if splits.kind == "text":
        names = ("length", "truncation", "windows", "overlap")
        kwargs = {name: getattr(options, name) for name in names}
        pairs = splits.train.element_spec[0].shape.rank == 1
        model = tlkit.text_classifier(
            options.source, splits.labels, pairs=pairs, trust=options.trust, **kwargs
        )
    else:
        kwargs = {"image_size": options.image_size, "pixels": options.pixels}
        kwargs["trust"] = options.trust
        model = tlkit.image_classifier(options.source, splits.labels, **kwargs)
    report = tlkit.fit(
        model,
        splits,
        schedule=getattr(tlkit, options.schedule)(),
        strategy=options.strategy,
        directory=options.directory,
        batch_size=options.batch_size,
        augmentation=tlkit.data.Augmentation() if options.augment else None,
        gradient_accumulation_steps=options.gradient_accumulation_steps,
        jit_compile=options.jit_compile,
        cache=False if options.cache == "off" else options.cache,
        resume=options.resume,
        seed=options.seed,
    )
    _save(model, options.directory)
    split = splits.train if splits.validation is None else splits.validation
    path = user_path(options.directory) / _EXAMPLES_FILE
    save_examples(take_examples(model, split), path)
    print(report)
    return json.loads(report.to_json())


def _evaluate(options) -> dict[str, Any]:
    import tlkit

    model, splits = _model(options.directory, trust=options.trust), _splits(options)
    if splits.test is None:
        raise DataError("This data has no test split. Give --test a fraction.")
    evaluation = tlkit.evaluate(model, splits.test)
    print(evaluation)
    return json.loads(evaluation.to_json())


def _predict(options) -> dict[str, Any]:
    import tlkit

    model = _model(options.directory, trust=options.trust)
    examples = _examples(model, options.examples)
    predictions = tlkit.predict(model, examples, verbose=0)
    for example, prediction in zip(examples, predictions, strict=True):
        shown = example if isinstance(example, str) else "\t".join(example)
        print(f"{prediction.label}\t{prediction.score:.4f}\t{shown}")
    return {
        "predictions": [
            {"label": prediction.label, "score": prediction.score}
            for prediction in predictions
        ]
    }


def _examples(model, arguments: list[str]) -> list[Any]:
    """Returns the examples, in pairs if the model takes pairs."""
    from .models import packing_of

    if not packing_of(model).pairs:
        return arguments
    if len(arguments) % 2:
        raise DataError(
            f"This model takes pairs of texts; got {len(arguments)} texts. Type: "
            "tlkit predict DIRECTORY FIRST SECOND"
        )
    return list(zip(arguments[::2], arguments[1::2], strict=True))


def _export(options) -> dict[str, Any]:
    import tlkit

    from .serving import load_examples

    directory = user_path(options.directory)
    model = _model(options.directory, trust=options.trust)
    examples = directory / _EXAMPLES_FILE
    report = directory / "report.json"
    path = tlkit.export(
        model,
        options.destination,
        version=options.version,
        examples=load_examples(examples) if examples.is_file() else None,
        report=tlkit.reports.Report.load(report) if report.is_file() else None,
        top=options.top,
        tolerance=options.tolerance,
        check=not options.no_check,
    )
    print(path)
    return {"export": str(path)}


def _demo(options) -> dict[str, Any]:
    from .samples import demo

    return demo(options.kind, directory=options.directory, export_to=options.export)


if __name__ == "__main__":
    sys.exit(main())
