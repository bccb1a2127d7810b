"""Data sets of TensorFlow Datasets, by name."""

from __future__ import annotations

import os
import pathlib
import re
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError, import_extra
from ...sources.download import require_network
from ..examples.class_sampling import take_per_class
from ..examples.random_access import mark_repeatable
from ..examples.splits import Splits, check_seed, check_size
from ..examples.tf_data import deterministic, parallel_map

_INFO = "dataset_info.json"
_VALIDATION = ("validation", "valid", "val", "dev")
_NAMED = 10


def tfds(
    name: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    train: str = "train",
    validation: str | float | int | None = "auto",
    test: str | None = "auto",
    keys: tuple[str, str] | None = None,
    examples_per_class: int | None = None,
    seed: int = 0,
    download: bool = False,
    verbose: int = 1,
) -> Splits:
    """Reads a data set of TensorFlow Datasets: pictures, texts or numbers with a class.

    A data set that is prepared is read where it stands, without a network. Pictures
    come as they are encoded, and are decoded by the model like any others.

    Args:
        name: A name such as `"beans"`, `"glue/sst2"` or `"mnist:3.0.1"`, or the folder
            of a prepared data set, with its `dataset_info.json`.
        data_dir: Where data sets are prepared. Default: where TensorFlow Datasets has
            them, `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        train: What to train on: one of its splits, or a slice such as `"train[:80%]"`
            or `"train[:1000]+extra"`.
        validation: A split or slice, or `None` for none, or how much to take from the
            end of `train`, which must then be a whole split: a share as a float in
            [0, 1), or a number of examples. `"auto"`: its own validation split, or else
            0.1, or none if `train` is a slice.
        test: A split or slice, or `None` for none. `"auto"`: its own test split, if
            there is one whose labels are known.
        keys: The features with the example and with its class. Default: what the data
            set says itself (its supervised keys).
        examples_per_class: Keeps so many of each class to train on: see
            `tlkit.data.take_per_class`.
        seed: Not negative. Decides which these are.
        download: Whether to download and prepare what is not there.
        verbose: 1 shows the progress of reading a few of each class, 0 is silent.

    Returns:
        Splits, in the order of the data set, with its names of classes.

    Raises:
        DataError: It is not prepared, has no such split, slice or feature, no single
            class for each example, or examples without labels.
        ExtraError: TensorFlow Datasets is not installed.

    Example:

    ```python
    splits = tlkit.data.tfds("beans", examples_per_class=20)
    splits = tlkit.data.tfds(
        "mnist", train="train[:80%]", validation="train[80%:]", download=True
    )
    ```
    """
    check_seed(seed)
    package = import_extra("tensorflow_datasets", "tfds", "tlkit.data.tfds")
    builder = _builder(package, name, data_dir, download)
    raw, label = _keys(package, builder, keys)
    chosen = _choose(builder, train, validation, test)
    read = lambda split: _read(package, builder, split, raw, label)
    datasets: dict[str, tf.data.Dataset | None] = {}
    for part, split in chosen.items():
        datasets[part] = None if split is None else read(split)
        if split is not None and not _is_labeled(datasets[part], split):
            if part != "test" or test != "auto":
                raise DataError(
                    f"The examples of {split!r} have no labels (-1). Name another "
                    f"split for {part}; there is: {_splits(builder)}."
                )
            datasets[part] = None
    image = isinstance(builder.info.features[raw], package.features.Image)
    strings = datasets["train"].element_spec[0].dtype == tf.string
    splits = Splits(
        **datasets,
        labels=tuple(builder.info.features[label].names),
        kind="image" if image else "text" if strings else "array",
    )
    if examples_per_class is None:
        return splits
    return take_per_class(splits, examples_per_class, seed=seed, verbose=verbose)


# === Finding the data set ===


def _builder(package: ModuleType, name, data_dir, download: bool) -> Any:
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    root = pathlib.Path(data_dir).expanduser()
    found = _find(root, os.fspath(name))
    if found is not None:
        return package.builder_from_directory(found)
    if not download:
        raise DataError(
            f"The data set {os.fspath(name)!r} is not prepared in {root}. Prepared "
            f"there: {', '.join(_prepared(root)) or '(nothing)'}. To fetch it, type: "
            f"tlkit.data.tfds({os.fspath(name)!r}, download=True)"
        )
    require_network(
        f"The data set {os.fspath(name)!r}",
        "Prepare it where there is a network, and give its folder as data_dir.",
    )
    try:
        builder = package.builder(os.fspath(name), data_dir=str(root))
        builder.download_and_prepare()
    except Exception as error:
        raise DataError(
            f"TensorFlow Datasets could not prepare {os.fspath(name)!r}: "
            f"{type(error).__name__}: {str(error)[:500]}"
        ) from error
    return builder


def _find(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """The folder of a prepared data set, its newest version unless one is named."""
    own = pathlib.Path(name).expanduser()
    if (own / _INFO).is_file():
        return own
    match = re.fullmatch(r"(\w+)(?:/([^:]+))?(?::([\d.]+))?", name)
    if match is None:
        return None
    dataset, config, version = match.groups()
    base = root / dataset / config if config else root / dataset
    found = [path for path in _versions(base) if version in (None, path.name)]
    if not found and config is None and base.is_dir():
        configs = [path for path in sorted(base.iterdir()) if _versions(path)]
        if len(configs) > 1:
            names = ", ".join(repr(f"{dataset}/{path.name}") for path in configs)
            raise DataError(f"There are several of {name!r}; name one of: {names}.")
        found = _versions(configs[0]) if configs else []
        found = [path for path in found if version in (None, path.name)]
    return found[-1] if found else None


def _versions(base: pathlib.Path) -> list[pathlib.Path]:
    """The prepared versions in a folder, the newest last."""
    found = [path.parent for path in base.glob(f"*/{_INFO}")]
    found = [path for path in found if re.fullmatch(r"\d+(\.\d+)*", path.name)]
    return sorted(found, key=lambda path: [int(n) for n in path.name.split(".")])


def _prepared(root: pathlib.Path) -> list[str]:
    found = [*root.glob(f"*/*/{_INFO}"), *root.glob(f"*/*/*/{_INFO}")]
    names = sorted({str(path.parent.parent.relative_to(root)) for path in found})
    return names[:_NAMED] + ["…"] * (len(names) > _NAMED)


# === What of it ===


def _keys(package: ModuleType, builder: Any, keys) -> tuple[str, str]:
    features = builder.info.features
    there = ", ".join(f"{key!r} ({type(features[key]).__name__})" for key in features)
    given = builder.info.supervised_keys if keys is None else tuple(keys)
    if given is None or len(given) != 2 or not all(isinstance(k, str) for k in given):
        raise DataError(
            f"{builder.info.full_name} does not say which of its features is the "
            f"example and which the class. Its features: {there}. Type: "
            'keys=("<example>", "<class>")'
        )
    for key in given:
        if key not in features:
            raise DataError(
                f"{builder.info.full_name} has no feature {key!r}. Its features: "
                f"{there}."
            )
    if not isinstance(features[given[1]], package.features.ClassLabel):
        raise DataError(
            f"The feature {given[1]!r} of {builder.info.full_name} is not one class "
            f"(ClassLabel). Its features: {there}."
        )
    return given


def _choose(builder: Any, train: str, validation, test) -> dict[str, str | None]:
    """The slices of the three splits."""
    own = builder.info.splits
    whole = train in own
    if validation == "auto":
        named = [name for name in _VALIDATION if name in own]
        validation = named[0] if named else 0.1 if whole else None
    if validation is not None and not isinstance(validation, str):
        train, validation = _divide(builder, train, check_size(validation))
    if test == "auto":
        test = "test" if "test" in own and not train.startswith("test") else None
    return {"train": train, "validation": validation, "test": test}


def _divide(builder: Any, train: str, size: float | int) -> tuple[str, str | None]:
    if not size:
        return train, None
    if train not in builder.info.splits or builder.info.disable_shuffling:
        reason = "its examples are not shuffled"
        if train not in builder.info.splits:
            reason = f"train={train!r} is not one of its splits: {_splits(builder)}"
        raise DataError(
            f"A validation split cannot be cut off: {reason}. Type a slice, such as "
            'train="train[:90%]", validation="train[90%:]", or validation=None.'
        )
    count = builder.info.splits[train].num_examples
    held = max(1, int(size * count + 0.5)) if isinstance(size, float) else size
    if held >= count:
        raise DataError(
            f"validation={size!r} takes all of the {count:,} examples of {train!r}."
        )
    return f"{train}[:{count - held}]", f"{train}[{count - held}:]"


def _read(package: ModuleType, builder: Any, split: str, raw: str, label: str):
    features = builder.info.features
    skip = {}
    if isinstance(features[raw], package.features.Image):
        skip = {raw: package.decode.SkipDecoding()}
    try:
        dataset = builder.as_dataset(
            split=split,
            decoders=package.decode.PartialDecoding(
                {raw: features[raw], label: features[label]}, decoders=skip
            ),
            shuffle_files=False,
            read_config=package.ReadConfig(try_autocache=False, skip_prefetch=True),
        )
    except (ValueError, KeyError, AssertionError, OSError) as error:
        raise DataError(
            f"{split!r} cannot be read from {builder.info.full_name}, which has: "
            f"{_splits(builder)}. {error}"
        ) from error

    def pair(example):
        value = example[raw]
        if value.dtype in (tf.float64, tf.bool):
            value = tf.cast(value, tf.float32)
        return value, tf.cast(example[label], tf.int32)

    return mark_repeatable(deterministic(parallel_map(dataset, pair)))


def _is_labeled(dataset: tf.data.Dataset, split: str) -> bool:
    """Whether the first example has a label; -1 stands for none."""
    try:
        _, first = next(iter(dataset.take(1)))
    except tf.errors.OpError as error:
        raise DataError(f"{split!r} cannot be read: {error.message}") from error
    return bool(np.asarray(first) >= 0)


def _splits(builder: Any) -> str:
    splits = builder.info.splits
    return ", ".join(f"{name} ({splits[name].num_examples:,})" for name in splits)
