"""Loads texts from a CSV file, or from a folder of class folders."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import DataError
from ...files import user_path
from ...progress import progress
from ..examples.split_assembly import LoadedExamples, SplitSizes, assemble
from ..examples.splits import Skipped, Splits, warn_skipped
from .class_folders import ClassFiles, find_class_files
from .csv_columns import TableFormat, check_encoding, encoding_error, read_columns

# A text, or a pair of them.
Text = str | tuple[str, str]


def text_csv(
    path: str | os.PathLike[str],
    *,
    text: str | Sequence[str],
    label: str,
    validation: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
    validation_path: str | os.PathLike[str] | None = None,
    test_path: str | os.PathLike[str] | None = None,
    delimiter: str | None = None,
    quote: str | None = '"',
    encoding: str = "utf-8",
    on_empty: str = "skip",
) -> Splits:
    """Loads texts and their labels from a CSV file with a header.

    Quoted fields may contain line breaks. Blanks around a label are removed; texts do
    not change. A split without a file is taken from `path`: stratified, and controlled
    by the seed. A class with a single text stays in the training split.

    Args:
        path: The file. `validation_path` and `test_path` have the same format.
        text: The name of the column of texts, or the names of two columns for pairs of
            texts, such as `("premise", "hypothesis")`.
        label: The name of the column of labels.
        validation: The size of the validation split, unless there is a
            `validation_path`: a fraction as a float in [0, 1), or a number of texts as
            an int; 0 for none.
        test: The size of the test split, unless there is a `test_path`; as for
            `validation`.
        seed: Not negative. Decides the splits and the order of the training texts.
        validation_path: A file with the validation split.
        test_path: A file with the test split.
        delimiter: One character between fields. `None` is a tab for files that end in
            `.tsv` or `.tab`, and a comma for all others.
        quote: The character around fields, or `None` if quotes have no meaning, as in
            many `.tsv` files.
        encoding: The encoding of the files. A byte order mark is ignored.
        on_empty: `"skip"` leaves out rows with an empty or blank text or label, with a
            warning that names them; a pair is empty if both of its texts are. `"raise"`
            raises an error.

    Returns:
        Splits of the kind `"text"`, with the sorted labels. The raw value of a pair is
        a string tensor `[2]`.

    Raises:
        DataError: A file or a column is missing, a row has too few or too many fields,
            bytes are outside the encoding, there is only one class, a label does not
            occur in training, or a text is empty and `on_empty="raise"`.

    Example:

    ```python
    splits = tlkit.data.text_csv("reviews.csv", text="review", label="stars")
    splits.labels  # ("1", "2", "3", "4", "5")
    model = tlkit.text_classifier("small_bert_L-4_H-512", splits.labels)
    tlkit.fit(model, splits)

    splits = tlkit.data.text_csv("snli.csv", text=("premise", "hypothesis"), label="y")
    model = tlkit.text_classifier("small_bert_L-4_H-512", splits.labels, pairs=True)
    ```
    """
    check_on_empty(on_empty)
    sizes = SplitSizes(validation, test, seed)
    table = TableFormat(delimiter, quote, encoding)
    columns = _check_columns(text, label)
    paths = {"train": path, "validation": validation_path, "test": test_path}
    loaded, skipped = {}, []
    for name, file in paths.items():
        if file is not None:
            rows = [
                (number, tuple(fields) if fields[1:] else fields[0], name)
                for number, (*fields, name) in read_columns(file, columns, table)
            ]
            where = os.path.abspath(user_path(file))
            texts, names = drop_empty(rows, where, on_empty, skipped)
            labels = tuple(sorted(set(names)))
            loaded[name] = LoadedExamples(texts, names, labels, where)
    warn_skipped(skipped, "rows")
    return assemble(loaded, sizes, kind="text", what="texts", skipped=skipped)


def text_folder(
    directory: str | os.PathLike[str],
    *,
    validation: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
    encoding: str = "utf-8",
    on_empty: str = "skip",
    verbose: int = 1,
) -> Splits:
    """Loads a folder of `.txt` files, with one folder for each class, into memory.

    The folder is `directory/<class>/…/*.txt` or `directory/<split>/<class>/…/*.txt`, as
    for `tlkit.data.image_folder`, with the same rules for missing splits.

    Args:
        directory: The folder.
        validation: The size of the validation split: a fraction as a float in [0, 1),
            or a number of texts as an int; 0 for none.
        test: The size of the test split, as for `validation`.
        seed: Not negative. Decides the splits and the order of the training texts.
        encoding: The encoding of the files. A byte order mark is ignored.
        on_empty: `"skip"` leaves out empty and blank files with a warning that names
            them, `"raise"` raises an error.
        verbose: 1 shows the progress, 0 is silent.

    Returns:
        Splits of the kind `"text"`. The labels are the sorted names of the folders.

    Raises:
        DataError: The folder has neither form, a class has no texts, a label does not
            occur in training, bytes are outside the encoding, or a text is empty and
            `on_empty="raise"`.

    Example:

    ```python
    splits = tlkit.data.text_folder("aclImdb", validation=0.2)
    splits  # Splits(text: train 20,000, validation 5,000, test 25,000; 2 labels: …
    ```
    """
    check_on_empty(on_empty)
    check_encoding(encoding)
    sizes = SplitSizes(validation, test, seed)
    class_files, divided = find_class_files(directory, (".txt",))
    loaded, skipped = {}, []
    for name, split in class_files.items():
        total = len(split.files)
        files = progress(
            split.files, total=total, what="reading texts", verbose=verbose
        )
        loaded[name] = _read_texts(split, files, encoding, on_empty, skipped)
    warn_skipped(skipped, "texts")
    if divided:
        sizes = replace(sizes, test=0)
    return assemble(loaded, sizes, kind="text", what="texts", skipped=skipped)


def _check_columns(text: str | Sequence[str], label: str) -> tuple[str, ...]:
    """Returns the names of the columns of texts and of the column of labels."""
    texts = (text,) if isinstance(text, str) else tuple(text)
    if len(texts) not in (1, 2):
        raise DataError(
            "text must name one column, or two for pairs of texts; got "
            f"{', '.join(map(repr, texts)) or 'none'}."
        )
    columns = (*texts, label)
    if len(set(columns)) < len(columns):
        raise DataError(f"text and label must be different columns; got {columns!r}.")
    return columns


def check_on_empty(on_empty: str) -> None:
    """Raises a `DataError` unless `on_empty` is `"skip"` or `"raise"`."""
    if on_empty not in ("skip", "raise"):
        raise DataError(f'on_empty must be "skip" or "raise"; got {on_empty!r}.')


def drop_empty(
    rows: Iterable[tuple[int, Text, str]],
    where: str,
    on_empty: str,
    skipped: list[Skipped],
) -> tuple[list[Text], list[str]]:
    """Leaves out rows with an empty text or label, and adds them to `skipped`.

    Args:
        rows: For each row its number, its text or pair of texts, and its label.
        where: The file, or the argument for data in memory.
        on_empty: `"skip"` or `"raise"`.
        skipped: The list to which the rows that are left out are added.

    Returns:
        The texts of the other rows, and their labels without blanks around them.
    """
    texts, names = [], []
    for number, text, name in rows:
        fields = {"text": text if isinstance(text, str) else "".join(text)}
        fields["label"] = name
        empty = [field for field, value in fields.items() if not value.strip()]
        if not empty:
            texts.append(text)
            names.append(name.strip())
            continue
        field = empty[0] if len(empty) == 1 else "row"
        entry = Skipped(where, f"the {field} is empty.", number)
        if on_empty == "raise":
            raise DataError(
                f'{entry} Fill it in, or leave such rows out. Type: on_empty="skip"'
            )
        skipped.append(entry)
    return texts, names


def _read_texts(
    split: ClassFiles,
    files: Iterable[tuple[str, int]],
    encoding: str,
    on_empty: str,
    skipped: list[Skipped],
) -> LoadedExamples:
    texts, names = [], []
    for path, label in files:
        text = _read_text(path, encoding)
        if text.strip():
            texts.append(text)
            names.append(split.labels[label])
            continue
        if on_empty == "raise":
            raise DataError(
                f"The file {path} has no text. Remove it, or leave such files out. "
                'Type: on_empty="skip"'
            )
        skipped.append(Skipped(path, "the text is empty."))
    return LoadedExamples(texts, names, split.labels, split.directory)


def _read_text(path: str, encoding: str) -> str:
    try:
        with open(path, encoding=check_encoding(encoding)) as file:
            return file.read()
    except UnicodeError as error:
        raise encoding_error(Path(path), encoding) from error
    except OSError as error:
        raise DataError(f"The file {path} cannot be read: {error.strerror}.") from error
