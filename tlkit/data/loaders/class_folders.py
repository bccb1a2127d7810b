"""Lists the files of a folder of class folders, by split and class.

Tested in tests/data/loaders/test_image_folder.py and test_texts.py.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...files import user_path

# Names of the splits' folders in published data sets.
_SYNONYMS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class ClassFiles:
    """The files of one split, in the order of their classes and names.

    Attributes:
        directory: The folder that holds the class folders.
        labels: The sorted names of the class folders.
        files: Pairs of an absolute path and the index of its label.
    """

    directory: str
    labels: tuple[str, ...]
    files: tuple[tuple[str, int], ...]


def find_class_files(
    directory: str | os.PathLike[str], suffixes: Iterable[str]
) -> tuple[dict[str, ClassFiles], bool]:
    """Lists the files of `directory/<class>/…` or `directory/<split>/<class>/…`.

    The folder has the second form if all folders in it are named like splits, and one
    is `train`. Hidden files are ignored.

    Args:
        directory: The folder.
        suffixes: Suffixes of the files to list, in lower case, such as `".txt"`. They
            match in any case.

    Returns:
        The files of each split, and whether the folder is divided into splits. If it is
        not, all files are under `"train"`.

    Raises:
        DataError: There is no such folder, or it has neither form.
    """
    root = _check_directory(directory)
    suffixes = tuple(suffixes)
    folders = _folders(root)
    splits = _split_folders(root, folders)
    if splits is None:
        return {"train": _class_files(root, folders, suffixes)}, False
    found = {
        name: _class_files(root / folder, _folders(root / folder), suffixes)
        for name, folder in splits.items()
    }
    return found, True


def _check_directory(directory: str | os.PathLike[str]) -> Path:
    text = os.fspath(directory)
    if "://" in text:
        raise DataError(
            f"The folder must be on this machine's disk; got {text!r}. Copy it here "
            f"first. Type: gcloud storage cp -r {text} ."
        )
    root = Path(os.path.abspath(user_path(text)))
    if root.is_file():
        raise DataError(
            f"{root} is a file, not a folder of class folders. If it is an archive, "
            "unpack it first."
        )
    if not root.is_dir():
        near = root.parent
        while not near.is_dir():
            near = near.parent
        names = ", ".join(_folders(near)[:10]) or "no folders"
        raise DataError(f"There is no folder {root}. In {near} there is: {names}.")
    return root


def _folders(directory: Path) -> list[str]:
    """Returns the sorted names of the folders in a folder, without hidden ones."""
    with os.scandir(directory) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
        )


def _split_folders(root: Path, folders: list[str]) -> dict[str, str] | None:
    """Returns the folder of each split, or `None` if the folders are classes."""
    splits: dict[str, str] = {}
    for name, synonyms in _SYNONYMS.items():
        matches = [folder for folder in folders if folder.lower() in synonyms]
        if len(matches) > 1:
            raise DataError(
                f"{root} has two folders for the {name} split: "
                f"{' and '.join(matches)}. Keep one."
            )
        if matches:
            splits[name] = matches[0]
    others = [folder for folder in folders if folder not in splits.values()]
    if "train" not in splits:
        return None
    if not others:
        return splits
    if len(splits) == 1:
        return None  # `train` may be a class of vehicles, like `car`
    raise DataError(
        f"{root} has folders of splits ({', '.join(splits.values())}) and others "
        f"({', '.join(others[:10])}). It must hold either splits or classes: move the "
        "others away."
    )


def _class_files(
    directory: Path, labels: list[str], suffixes: tuple[str, ...]
) -> ClassFiles:
    if not labels:
        loose = sum(name.lower().endswith(suffixes) for name in os.listdir(directory))
        raise DataError(
            f"{directory} has no class folders ({loose:,} files outside of one). "
            f"It must hold one folder for each class: {directory.name}/<class>/"
            f"*{suffixes[0]}"
        )
    files = [
        (path, index)
        for index, label in enumerate(labels)
        for path in _walk(directory / label, suffixes)
    ]
    return ClassFiles(str(directory), tuple(labels), tuple(files))


def _walk(directory: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Returns the sorted files with these suffixes below a folder, but not hidden."""
    paths = []
    for folder, below, names in os.walk(directory):
        below[:] = [name for name in below if not name.startswith(".")]
        paths += [
            os.path.join(folder, name)
            for name in names
            if name.lower().endswith(suffixes) and not name.startswith(".")
        ]
    # Sorted by the parts of a path, since the separator of Windows sorts differently.
    return sorted(paths, key=lambda path: path.split(os.sep))
