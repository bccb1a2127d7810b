"""What every loader returns: the splits of one data set."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

_NAMED = 10  # how many paths a warning names before it only counts


@dataclass(frozen=True)
class Skipped:
    """One example that was left out, and why.

    Attributes:
        path: The file that it is, or that it stands in; for data in memory the
            argument that it stands in, such as `"x"`.
        reason: What is wrong with it.
        row: Where it stands in a file, as a spreadsheet numbers its rows: the header is
            row 1. In memory, its index. `None` for a file of its own.
    """

    path: str
    reason: str
    row: int | None = None

    def __str__(self) -> str:
        if self.row is None:
            return f"{self.path}: {self.reason}"
        return f"{self.path}, row {self.row}: {self.reason}"


class SkippedWarning(UserWarning):
    """Examples were left out of the data; `splits.skipped` lists them."""


@dataclass(frozen=True, repr=False)
class Splits:
    """A data set in its three splits, ready for `tlkit.fit`.

    Each split is a plain `tf.data.Dataset`: not batched, deterministic, of known
    cardinality. Its elements are pairs `(raw, label)`. The label is an int32 scalar,
    an index into `labels`. What `raw` is depends on `kind`:

    * `"image"`: a scalar string, the bytes of an encoded picture (JPEG, PNG, GIF,
      BMP, WebP);
    * `"text"`: a scalar string, a text in UTF-8, or `[2]` of them, a pair;
    * `"array"`: an array of numbers.

    Attributes:
        train: The examples to train on, in a seeded random order.
        validation: The examples to choose by, or `None`.
        test: The examples to judge by, or `None`.
        labels: The names of the classes, by their index.
        kind: `"image"`, `"text"` or `"array"`.
        skipped: What was left out, and why.
    """

    train: tf.data.Dataset
    validation: tf.data.Dataset | None
    test: tf.data.Dataset | None
    labels: tuple[str, ...]
    kind: str
    skipped: tuple[Skipped, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """The number of examples in each split that there is, by its name."""
        splits = {name: getattr(self, name) for name in SPLIT_NAMES}
        return {
            name: int(dataset.cardinality())
            for name, dataset in splits.items()
            if dataset is not None
        }

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name} {size:,}" for name, size in self.sizes.items())
        skipped = f"; skipped {len(self.skipped):,}" if self.skipped else ""
        shown = [repr(label) for label in self.labels[:_NAMED]]
        more = len(self.labels) - len(shown)
        labels = ", ".join(shown) + (f", … and {more:,} more" if more else "")
        return (
            f"Splits({self.kind}: {sizes}{skipped}; "
            f"{len(self.labels):,} labels: {labels})"
        )


SPLIT_NAMES = ("train", "validation", "test")


def warn_skipped(skipped: Sequence[Skipped], what: str) -> None:
    """Says once, with names, what was left out.

    Args:
        skipped: What was left out; nothing is said about nothing.
        what: What they are, in the plural, such as `"pictures"`.
    """
    if not skipped:
        return
    lines = [f"  {entry}" for entry in skipped[:_NAMED]]
    if len(skipped) > _NAMED:
        lines.append(f"  … and {len(skipped) - _NAMED:,} more: see splits.skipped")
    warnings.warn(
        f"Skipped {len(skipped):,} {what} that cannot be used:\n" + "\n".join(lines),
        SkippedWarning,
        stacklevel=3,
    )
