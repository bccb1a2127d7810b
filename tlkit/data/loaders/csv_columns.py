"""Reads columns of a CSV file; an error names the row and its fault.

Tested in tests/data/loaders/test_texts.py.
"""

import codecs
import contextlib
import csv
import difflib
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError
from ...files import user_path

_TAB_SUFFIXES = (".tsv", ".tab")
# The largest value that csv accepts on all platforms: a C long has 32 bits on Windows.
_FIELD_LIMIT = 2**31 - 1


@dataclass(frozen=True)
class TableFormat:
    """The format of a CSV file.

    Attributes:
        delimiter: One character between the fields, or `None` to choose it by the
            suffix of the file.
        quote: One character around fields, or `None` if there are no quotes.
        encoding: A name that `codecs.lookup` knows.
    """

    delimiter: str | None = None
    quote: str | None = '"'
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        for name in ("delimiter", "quote"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or len(value) != 1):
                raise DataError(f"{name} must be one character or None; got {value!r}.")
        check_encoding(self.encoding)


def read_columns(
    path: str | os.PathLike[str], columns: Sequence[str], table: TableFormat
) -> list[tuple[int, list[str]]]:
    """Reads some columns of a table with a header.

    Args:
        path: The file.
        columns: The names of the columns in the header.
        table: The format of the file.

    Returns:
        For each row its number, as a spreadsheet counts (the header is row 1), and its
        fields in the order of `columns`. Blank rows are left out.

    Raises:
        DataError: The file is missing, or has no such column, rows of different
            lengths, a quote that is not closed, or bytes outside its encoding.
    """
    file = check_file(path)
    with _rows(file, table) as rows:
        header = next(rows, None)
        if header is None:
            raise DataError(f"{file} is empty; its first row must name the columns.")
        positions = [_find_column(name, header, file, rows) for name in columns]
        result = []
        for number, row in enumerate(rows, start=2):
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"Row {number:,} of {file} (ends on line {rows.line_num:,}) has "
                    f"{len(row)} fields; the header has {len(header)}. A field that "
                    "contains the delimiter must be quoted. If quotes have no meaning "
                    "in this file, type: quote=None"
                )
            result.append((number, [row[position] for position in positions]))
    return result


def check_file(path: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of a file, or raises a `DataError` if it is no file."""
    file = Path(os.path.abspath(user_path(path)))
    if file.is_dir():
        raise DataError(f"{file} is a folder, not a file. Type: text_folder(…)")
    if not file.is_file():
        names = sorted(os.listdir(file.parent)) if file.parent.is_dir() else []
        raise DataError(
            f"There is no file {file}.{did_you_mean(file.name, names)} In "
            f"{file.parent} there is: {', '.join(names[:10]) or 'nothing'}."
        )
    return file


def check_encoding(encoding: str) -> str:
    """Returns an encoding's name; for UTF-8 the one that skips a byte order mark."""
    try:
        name = codecs.lookup(encoding).name
    except (LookupError, TypeError) as error:
        raise DataError(
            f"encoding must be the name of one, such as 'utf-8', 'utf-16', 'cp1252' or "
            f"'latin-1'; got {encoding!r}."
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def encoding_error(file: Path, encoding: str) -> DataError:
    """Returns an error that names the first byte of a file that cannot be decoded."""
    decoder = codecs.getincrementaldecoder(check_encoding(encoding))()
    offset, line = 0, 1
    with open(file, "rb") as lines:
        marked = lines.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        lines.seek(0)
        # The empty string at the end detects an incomplete last character.
        for content in itertools.chain(lines, [b""]):
            pending = decoder.getstate()[0]
            try:
                decoder.decode(content, final=not content)
            except UnicodeError as error:
                offset += getattr(error, "start", 0) - len(pending)
                break
            offset += len(content)
            line += content.count(b"\n")
    return DataError(
        f"{file} is not written in {encoding}: the byte at offset {offset:,} (line "
        f"{line:,}) cannot be decoded. Save it as UTF-8, or name its encoding. Type: "
        + ("encoding='utf-16'" if marked else "encoding='cp1252' (or 'latin-1', …)")
    )


def did_you_mean(name: str, names: list[str]) -> str:
    """Returns a sentence with the closest of the names, or an empty string."""
    close = difflib.get_close_matches(name, names, n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


@contextlib.contextmanager
def _rows(file: Path, table: TableFormat) -> Iterator[csv.reader]:
    """Opens a CSV file as a context, in which reading errors become a `DataError`."""
    delimiter = table.delimiter or _delimiter_by_name(file)
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        with open(file, encoding=check_encoding(table.encoding), newline="") as lines:
            # Strict: otherwise all that follows an unclosed quote silently becomes one
            # field.
            rows = csv.reader(
                lines,
                delimiter=delimiter,
                quotechar=table.quote,
                quoting=csv.QUOTE_NONE if table.quote is None else csv.QUOTE_MINIMAL,
                strict=True,
            )
            try:
                yield rows
            except csv.Error as error:
                raise DataError(
                    f"{file} is not a table, near line {rows.line_num:,}: {error}. "
                    "A quote inside quotes is doubled. If quotes have no meaning "
                    "in this file, type: quote=None"
                ) from error
    except UnicodeError as error:
        raise encoding_error(file, table.encoding) from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    finally:
        csv.field_size_limit(limit)


def _delimiter_by_name(file: Path) -> str:
    return "\t" if file.suffix.lower() in _TAB_SUFFIXES else ","


def _find_column(name: str, header: list[str], file: Path, rows: csv.reader) -> int:
    names = [column.strip() for column in header]
    if names.count(name) == 1:
        return names.index(name)
    if name in names:
        raise DataError(f"{file} has {names.count(name)} columns {name!r}; keep one.")
    hint = did_you_mean(name, names)
    delimiter = rows.dialect.delimiter
    others = [other for other in ",;\t|" if other != delimiter and other in header[0]]
    if len(header) == 1 and others:
        hint += (
            f" The header has no {delimiter!r} but {others[0]!r}. "
            f"Type: delimiter={others[0]!r}"
        )
    raise DataError(
        f"{file} has no column {name!r}. Its columns: "
        f"{', '.join(map(repr, names))}.{hint}"
    )
