"""The command line: one call into the package for each command."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

from .errors import DataError, TlkitError

_SCHEDULES = ("head_only", "head_then_all", "gradual")
_CACHES = ("auto", "memory", "disk", "off")
_TRUNCATIONS = ("head", "tail", "head+tail")
_PICTURES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
_SHARDS = "shards.json"
_OFFLINE = "TLKIT_OFFLINE"
# Some of the validation split, which `export` checks itself with.
_ROWS = "validation_rows.tfrecord"


def main(arguments: list[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: What stands behind `tlkit`; those of the process if `None`.

    Returns:
        The exit status: 0, or 1 after an error of tlkit's, or 130 after Ctrl-C.
    """
    options = _parser().parse_args(arguments)
    try:
        with _offline(options.offline):
            figures = options.run(options)
    except TlkitError as error:
        print(f"tlkit {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        hint = " Type the same with --resume to go on." * (options.command == "fit")
        print(f"tlkit {options.command}: stopped.{hint}", file=sys.stderr)
        return 130
    if options.json:
        print(json.dumps(figures))
    return 0


@contextlib.contextmanager
def _offline(chosen: bool) -> Iterator[None]:
    """Keeps a command off the network, and what it starts, too."""
    before = os.environ.get(_OFFLINE)
    if chosen:
        os.environ[_OFFLINE] = "1"
    try:
        yield
    finally:
        if chosen and before is None:
            del os.environ[_OFFLINE]
        elif chosen:
            os.environ[_OFFLINE] = before


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tlkit",
        description="Fine-tune any published TensorFlow encoder, block by block, and "
        "serve the result.",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    command = _command(commands, "inspect", _inspect, "say what an encoder is")
    command.add_argument("source", help="folder, catalog name or address")
    _add_trust(command)

    command = _command(commands, "fetch", _fetch, "bring an encoder to a folder")
    command.add_argument("source", help="folder, catalog name, address or bundle")
    command.add_argument("directory", help="new folder, or with --bundle a new .tar")
    command.add_argument(
        "--bundle", action="store_true", help="one file, for a machine without network"
    )

    _add_fit(_command(commands, "fit", _fit, "train a classifier"))

    command = _command(commands, "evaluate", _evaluate, "judge a trained model")
    command.add_argument("directory", help="folder of the run")
    _add_data(command)
    _add_trust(command)

    command = _command(commands, "predict", _predict, "label texts or pictures")
    command.add_argument("directory", help="folder of the run")
    command.add_argument(
        "examples", nargs="+", help="texts, pairs of them in turn, or picture files"
    )
    _add_trust(command)

    command = _command(commands, "export", _export, "write a served model")
    command.add_argument("directory", help="folder of the run")
    command.add_argument("destination", help="such as saved_models/flowers")
    command.add_argument("--version", type=int, help="the next free one")
    _add_trust(command)
    command.add_argument("--top", type=int, help="how many labels top_labels gives")
    command.add_argument(
        "--tolerance", type=float, default=1e-5, help="by how much a score may differ"
    )
    command.add_argument(
        "--no-check", action="store_true", help="do not ask the export in a process"
    )

    command = _command(commands, "demo", _demo, "the whole job, on real data")
    command.add_argument("kind", choices=("text", "image"))
    command.add_argument("--directory", default="runs/demo", help="folder of the run")
    command.add_argument("--export", default="saved_models/demo", help="where to")
    return parser


def _add_fit(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", help="the encoder: folder, catalog name or address")
    _add_trust(command)
    _add_data(command)
    command.add_argument("--directory", required=True, help="folder of the run")
    command.add_argument("--schedule", choices=_SCHEDULES, default="head_then_all")
    command.add_argument("--batch-size", type=int, default=32)
    command.add_argument("--image-size", type=int, help="pixels; the encoder's own")
    command.add_argument("--pixels", help="unit, symmetric, byte, caffe or torch")
    command.add_argument(
        "--augment", action="store_true", help="crop and mirror pictures at random"
    )
    command.add_argument("--length", type=int, default=128, help="tokens of a text")
    command.add_argument(
        "--truncation", choices=_TRUNCATIONS, default="head", help="of texts too long"
    )
    command.add_argument(
        "--windows", type=int, default=1, help="in how many to read a longer text"
    )
    command.add_argument(
        "--overlap", type=int, default=0, help="tokens that two windows share"
    )
    command.add_argument("--strategy", help="cpu, gpu, mirrored, multi_worker, tpu")
    command.add_argument(
        "--resume", action="store_true", help="go on from the run's last checkpoint"
    )
    command.add_argument(
        "--gradient-accumulation-steps", type=int, help="batches in one update"
    )
    command.add_argument("--jit-compile", action="store_true", help="compile by XLA")
    command.add_argument(
        "--cache",
        choices=_CACHES,
        default="auto",
        help="where to keep what frozen blocks give",
    )


def _command(commands, name: str, run, summary: str) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(run=run)
    command.add_argument(
        "--json", action="store_true", help="end with one line of JSON"
    )
    command.add_argument(
        "--offline", action="store_true", help="touch no network, as TLKIT_OFFLINE=1"
    )
    return command


def _add_trust(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--trust",
        action="store_true",
        help="take an encoder that reads or writes files, connects or runs Python",
    )


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "data",
        help="folder of class folders (pictures or .txt) or of shards, .csv file, "
        "sample:NAME such as sample:reuters-r8, or tfds:NAME, prepared before",
    )
    command.add_argument(
        "--text", default="text", help="column of a .csv file; for pairs FIRST,SECOND"
    )
    command.add_argument("--label", default="label", help="column of a .csv file")
    share = "share of data that is not split yet"
    command.add_argument("--validation", type=float, default=0.1, help=share)
    command.add_argument("--test", type=float, default=0.1, help=share)
    command.add_argument("--seed", type=int, default=0)


def _splits(options) -> Any:
    """The data that a command line names."""
    from . import data, samples

    kwargs = {"validation": options.validation, "test": options.test}
    kwargs["seed"] = options.seed
    if options.data.startswith("sample:"):
        return samples.splits(options.data.removeprefix("sample:"), **kwargs)
    if options.data.startswith("tfds:"):
        return data.tfds(options.data.removeprefix("tfds:"))
    path = pathlib.Path(options.data)
    if (path / _SHARDS).is_file():
        return data.tfrecords(path)
    if path.is_dir():
        files = (f.suffix.lower() for f in path.rglob("*") if f.is_file())
        pictures = any(suffix in _PICTURES for suffix in files)
        load = data.image_folder if pictures else data.text_folder
        return load(path, **kwargs)
    columns = options.text.split(",")
    text = columns if columns[1:] else options.text
    return data.text_csv(path, text=text, label=options.label, **kwargs)


def _model(directory: str, *, trust: bool = False):
    import keras

    path = pathlib.Path(directory) / "model.keras"
    if not path.is_file():
        raise DataError(
            f"There is no trained model in {directory} (no model.keras). Train one: "
            f"tlkit fit SOURCE DATA --directory {directory}"
        )
    try:
        return keras.saving.load_model(path, safe_mode=not trust)
    except ValueError as error:  # Keras puts words of its own around ours
        raise DataError(f"The model {path} cannot be loaded: {error}") from error


def _save(model, directory: str) -> None:
    path = pathlib.Path(directory) / "model.keras"
    beside = path.with_name(".writing.keras")
    # Keras writes in place: a crash would leave half a file.
    try:
        model.save(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


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

    from .serving import rows_of, save_rows

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
    rows = splits.train if splits.validation is None else splits.validation
    save_rows(rows_of(model, rows), pathlib.Path(options.directory) / _ROWS)
    print(report)
    return json.loads(report.to_json())


def _evaluate(options) -> dict[str, Any]:
    import tlkit

    model, splits = _model(options.directory, trust=options.trust), _splits(options)
    if splits.test is None:
        raise DataError("There is no test split in this data. Give --test a share.")
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


def _examples(model, given: list[str]) -> list[Any]:
    """What a command line names, in pairs if the model takes pairs."""
    from .encoders import find_encoder

    encoder = find_encoder(model)
    if encoder is None or not encoder.details.get("pairs"):
        return given
    if len(given) % 2:
        raise DataError(
            f"This model takes pairs of texts; got {len(given)} texts. Type: "
            "tlkit predict DIRECTORY FIRST SECOND"
        )
    return list(zip(given[::2], given[1::2], strict=True))


def _export(options) -> dict[str, Any]:
    import tlkit

    from .serving import load_rows

    directory = pathlib.Path(options.directory)
    model = _model(options.directory, trust=options.trust)
    rows = directory / _ROWS
    report = directory / "report.json"
    path = tlkit.export(
        model,
        options.destination,
        version=options.version,
        examples=load_rows(rows) if rows.is_file() else None,
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
