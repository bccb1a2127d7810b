"""Activations on a disk: found by what they were made of, made anew if they are not."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ... import models
from ...files import atomic as folders
from ...models import encoder_to_cut, lower_weights
from ..feeds.feed import Feed
from ..loop.display import say
from ..plans.cache_plan import ActivationCache, Kept
from . import cache_files as row_files
from .cached_rows import Column, StoredRows, row_offsets
from .frozen_pass import CannotKeep


class KeptFiles:
    """The folder of activations.

    Args:
        model: The whole model.
        options: How activations are kept.
        verbose: 0 for silence.
    """

    def __init__(self, model: keras.Model, options: ActivationCache, *, verbose: int):
        self.model, self.options, self.verbose = model, options, verbose
        self._digests: dict[int, tuple[Feed, str]] = {}

    def find(self, kept: Kept, feed: Feed) -> StoredRows | None:
        """What an earlier run left, if it is whole and of the same things."""
        facts = self.facts(kept, feed)
        folder = self.folder(facts)
        if not folder.exists():
            return None
        try:
            rows = self._open(folder, facts, feed)
        except row_files.Unusable as error:
            if self.verbose:
                say(f"What is kept in {folder} is no use: {error}. It is made anew.")
            folders.remove(folder)
            return None
        with contextlib.suppress(OSError):  # it need not be ours
            os.utime(folder)  # was used now
        return rows

    def _open(
        self, folder: pathlib.Path, facts: dict[str, Any], feed: Feed
    ) -> StoredRows:
        index = row_files.read_index(folder, facts)
        columns = [Column(**c | {"shape": tuple(c["shape"])}) for c in index["columns"]]
        offsets = row_offsets(columns, feed.examples, feed.lengths)
        rows = StoredRows(
            row_files.FileStorage(folder, offsets, writes=False),
            _structure(index["structure"]),
            columns,
            count=feed.examples,
            lengths=feed.lengths,
            checksums=row_files.read_checksums(folder),
            where=str(folder),
        )
        row_files.check_rows(rows, verbose=self.verbose)
        return rows

    @contextlib.contextmanager
    def writing(self, feed: Feed) -> Iterator[Writing]:
        """Gives what makes new files; what is not finished then is removed."""
        with contextlib.ExitStack() as stack:
            yield Writing(self, feed, stack)

    def facts(self, kept: Kept, feed: Feed) -> dict[str, Any]:
        """All that decides what the activations are."""
        return {
            # Pictures may be decoded, and graphs run, in another way by others.
            "versions": [_version(), tf.__version__],
            "cut": kept.name,
            "dtype": kept.dtype,
            "network": _network_digest(self.model),
            "weights": _weights_digest(self.model, kept.cut),
            "data": self._data_digest(feed),
            "examples": feed.examples,
        }

    def _data_digest(self, feed: Feed) -> str:
        # All of the data is read for it, so once in a run.
        if id(feed) not in self._digests:
            self._digests[id(feed)] = feed, feed.digest()
        return self._digests[id(feed)][1]

    def folder(self, facts: dict[str, Any]) -> pathlib.Path:
        """Where the activations of which that is true are kept."""
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        return self.options.folder / key[:32]


class Writing:
    """New files of activations, each set in a folder that is renamed when it is whole.

    Args:
        files: The folder of all.
        feed: The examples.
        stack: Closes, and removes what was not finished.
    """

    def __init__(self, files: KeptFiles, feed: Feed, stack: contextlib.ExitStack):
        self.files, self.feed, self.stack = files, feed, stack
        self._facts: dict[int, dict[str, Any]] = {}

    def make(self, kept: Kept, structure: Any, columns: Sequence[Column]) -> StoredRows:
        """Makes files, as long as they will be.

        Raises:
            CannotKeep: They would be larger than what all of them may take.
            OSError: The disk is full.
        """
        facts = self._facts[kept.cut] = self.files.facts(kept, self.feed)
        folder = self.files.folder(facts)
        offsets = row_offsets(columns, self.feed.examples, self.feed.lengths)
        root, limit = folder.parent, self.files.options.disk_limit
        root.mkdir(parents=True, exist_ok=True)
        if not row_files.make_room(root, int(offsets[-1]), limit):
            raise CannotKeep(
                f"{offsets[-1] / 1e9:.3g} GB are more than disk_limit, which is "
                f"{limit / 1e9:.3g} GB"
            )
        made = self.stack.enter_context(folders.staging(folder))
        storage = row_files.FileStorage(made, offsets, writes=True)
        return StoredRows(
            storage,
            structure,
            columns,
            count=self.feed.examples,
            lengths=self.feed.lengths,
            checksums=np.zeros(self.feed.examples, np.uint32),
            where=str(folder),
        )

    def finish(self, kept: Kept, rows: StoredRows) -> None:
        """Makes what was written visible to later runs."""
        facts = self._facts[kept.cut]
        described = {
            "structure": _described(rows.structure),
            "columns": [vars(column) for column in rows.columns],
        }
        row_files.finish(rows, facts, described)
        folders.put(rows.storage.folder, self.files.folder(facts))


def _described(structure: Any) -> Any:
    """A nest without its leaves: `None` for a leaf, else the names of a state."""
    if not isinstance(structure, dict):
        return None
    return {key: _described(value) for key, value in structure.items()}


def _structure(described: Any) -> Any:
    if described is None:
        return 0
    return {key: _structure(value) for key, value in described.items()}


def _network_digest(model: keras.Model) -> str:
    """Digest of all that is computed below the head, without the weights."""
    encoder = encoder_to_cut(model)
    trunk, _ = models.split(model)
    if encoder is None:
        return hashlib.sha256(trunk.to_json().encode()).hexdigest()
    others = [layer.get_config() for layer in trunk.layers if layer is not encoder]
    found = hashlib.sha256(encoder.network.digest.encode())
    found.update(json.dumps(others, sort_keys=True, default=str).encode())
    return found.hexdigest()


def _version() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tlkit")
    return ""


def _weights_digest(model: keras.Model, cut: int) -> str:
    found = hashlib.sha256()
    for variable in lower_weights(model, cut):
        found.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return found.hexdigest()
