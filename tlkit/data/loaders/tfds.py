"""Loads data sets of TensorFlow Datasets by name."""

import os
import pathlib
import re
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

from ...errors import DataError, import_extra
from ...files import user_path
from ...sources.download import require_network
from ..examples.class_sampling import take_per_class
from ..examples.random_access import mark_repeatable
from ..examples.splits import Splits, check_seed, check_size
from ..examples.tf_data import deterministic, parallel_map

_INFO = "dataset_info.json"
_VALIDATION = ("validation", "valid", "val", "dev")
_NAMED = 10  # how many data sets an error names


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
    """Loads a data set of TensorFlow Datasets: images, texts or numbers with a class.

    A prepared data set is read from its folder, without a network. Images stay encoded
    until the model's preprocessing decodes them. The splits are streams, shuffled
    within a buffer; with `examples_per_class` the training split has random access.

    Args:
        name: A name such as `"beans"`, `"glue/sst2"` or `"mnist:3.0.1"`, or the folder
            of a prepared data set, with its `dataset_info.json`.
        data_dir: The folder of prepared data sets. Default: that of TensorFlow
            Datasets, `TFDS_DATA_DIR` or `~/tensorflow_datasets`.
        train: The training split: a split of the data set, or a slice such as
            `"train[:80%]"` or `"train[:1000]+extra"`.
        validation: A split or slice, or `None` for none, or the size of a validation
            split that is taken from the end of `train`, which must be a whole split: a
            fraction as a float in [0, 1), or a number of examples. `"auto"`: the data
            set's validation split; if there is none, 0.1, or `None` if `train` is a
            slice.
        test: A split or slice, or `None` for none. `"auto"`: the data set's test split,
            if it has one with labels.
        keys: The names of the features with the example and with its class. Default:
            the supervised keys of the data set.
        examples_per_class: How many examples of each class the training split has: see
            `tlkit.data.take_per_class`. Default: all.
        seed: Not negative. Decides which examples `examples_per_class` takes.
        download: Whether to download and prepare a data set that is not prepared.
        verbose: 1 shows the progress of `examples_per_class`, 0 is silent.

    Returns:
        Splits with the data set's names of classes, and examples in its order.

    Raises:
        DataError: The data set is not prepared, or has no such split, slice or feature;
            or its examples have no label, or several.
        ExtraError: TensorFlow Datasets is not installed.

    Example:

    ```python
    splits = tlkit.data.tfds("beans", examples_per_class=20)
    splits.sizes  # {"train": 60, "validation": 133, "test": 128}
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


def _builder(package: ModuleType, name, data_dir, download: bool) -> Any:
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")
    root = user_path(data_dir)
    folder = _find(root, os.fspath(name))
    if folder is not None:
        return package.builder_from_directory(folder)
    if not download:
        raise DataError(
            f"The data set {os.fspath(name)!r} is not prepared in {root}. Prepared "
            f"there: {', '.join(_prepared(root)) or '(nothing)'}. To download it, "
            f"type: tlkit.data.tfds({os.fspath(name)!r}, download=True)"
        )
    require_network(
        f"The data set {os.fspath(name)!r}",
        "Prepare it on a machine with a network, and pass its folder as data_dir.",
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
    """Returns the folder of a prepared data set; the newest version by default."""
    folder = user_path(name)
    if (folder / _INFO).is_file():
        return folder
    match = re.fullmatch(r"(\w+)(?:/([^:]+))?(?::([\d.]+))?", name)
    if match is None:
        return None
    dataset, config, version = match.groups()
    base = root / dataset / config if config else root / dataset
    matches = [path for path in _versions(base) if version in (None, path.name)]
    if not matches and config is None and base.is_dir():
        configs = [path for path in sorted(base.iterdir()) if _versions(path)]
        if len(configs) > 1:
            names = ", ".join(repr(f"{dataset}/{path.name}") for path in configs)
            raise DataError(f"There are several of {name!r}; name one of: {names}.")
        versions = _versions(configs[0]) if configs else []
        matches = [path for path in versions if version in (None, path.name)]
    return matches[-1] if matches else None


def _versions(base: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders of prepared versions, the newest last."""
    folders = [path.parent for path in base.glob(f"*/{_INFO}")]
    folders = [path for path in folders if re.fullmatch(r"\d+(\.\d+)*", path.name)]
    return sorted(folders, key=lambda path: [int(n) for n in path.name.split(".")])


def _prepared(root: pathlib.Path) -> list[str]:
    infos = [*root.glob(f"*/*/{_INFO}"), *root.glob(f"*/*/*/{_INFO}")]
    names = sorted({str(path.parent.parent.relative_to(root)) for path in infos})
    return names[:_NAMED] + ["…"] * (len(names) > _NAMED)


def _keys(package: ModuleType, builder: Any, keys) -> tuple[str, str]:
    features = builder.info.features
    listed = ", ".join(f"{key!r} ({type(features[key]).__name__})" for key in features)
    pair = builder.info.supervised_keys if keys is None else tuple(keys)
    if pair is None or len(pair) != 2 or not all(isinstance(key, str) for key in pair):
        raise DataError(
            f"{builder.info.full_name} has no supervised keys, which name the features "
            f"with the example and the class. Its features: {listed}. Type: "
            'keys=("<example>", "<class>")'
        )
    for key in pair:
        if key not in features:
            raise DataError(
                f"{builder.info.full_name} has no feature {key!r}. Its features: "
                f"{listed}."
            )
    if not isinstance(features[pair[1]], package.features.ClassLabel):
        raise DataError(
            f"The feature {pair[1]!r} of {builder.info.full_name} is not one class "
            f"(ClassLabel). Its features: {listed}."
        )
    return pair


def _choose(builder: Any, train: str, validation, test) -> dict[str, str | None]:
    """Returns the name or slice of each split; `None` for a split that is left out."""
    existing = builder.info.splits
    if validation == "auto":
        named = [name for name in _VALIDATION if name in existing]
        default = 0.1 if train in existing else None
        validation = named[0] if named else default
    if validation is not None and not isinstance(validation, str):
        train, validation = _divide(builder, train, check_size(validation))
    if test == "auto":
        test = "test" if "test" in existing and not train.startswith("test") else None
    return {"train": train, "validation": validation, "test": test}


def _divide(builder: Any, train: str, size: float | int) -> tuple[str, str | None]:
    if not size:
        return train, None
    if train not in builder.info.splits or builder.info.disable_shuffling:
        reason = "its examples are not shuffled"
        if train not in builder.info.splits:
            reason = f"train={train!r} is not one of its splits: {_splits(builder)}"
        raise DataError(
            f"A validation split cannot be taken: {reason}. Type a slice, such as "
            'train="train[:90%]", validation="train[90%:]", or validation=None.'
        )
    count = builder.info.splits[train].num_examples
    held_out = max(1, int(size * count + 0.5)) if isinstance(size, float) else size
    if held_out >= count:
        raise DataError(
            f"validation={size!r} takes all of the {count:,} examples of {train!r}."
        )
    return f"{train}[:{count - held_out}]", f"{train}[{count - held_out}:]"


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
    """Returns whether the first example has a label; -1 means that it has none."""
    try:
        _, first = next(iter(dataset.take(1)))
    except tf.errors.OpError as error:
        raise DataError(f"{split!r} cannot be read: {error.message}") from error
    return bool(np.asarray(first) >= 0)


def _splits(builder: Any) -> str:
    splits = builder.info.splits
    return ", ".join(f"{name} ({splits[name].num_examples:,})" for name in splits)
