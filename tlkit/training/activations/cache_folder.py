"""Cached activations on disk, found by a digest of everything they depend on.

Tested in tests/training/activations/test_cache_files.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ... import models
from ...files import move_into_place, remove, staging
from ...models import encoder_to_cut, prefix_weights
from ..feeds.feed import Feed
from ..loop.display import print_line
from ..plans.cache_plan import ActivationCache, CachePlan
from .cache_files import (
    UnusableCacheError,
    create_rows,
    open_rows,
    reopen_rows,
    stored_bytes,
    write_index,
)
from .cached_rows import CachedRows, Column
from .frozen_pass import NotCacheableError

# The version of the file format, in the names of folders; names of tlkit 0.1 lack it.
FORMAT = 2
# Only folders that match are removed: others may be the user's.
_NAME = re.compile("(?:v([0-9]+)-)?[0-9a-f]{32}(?:-partial)?")


class CacheFolder:
    """The folder that holds one folder for each set of cached activations.

    Args:
        model: The complete model.
        options: The user's options: the path and the disk limit.
        verbose: 0 for silence.
    """

    def __init__(self, model: keras.Model, options: ActivationCache, *, verbose: int):
        self.model, self.options, self.verbose = model, options, verbose
        self._digests: dict[int, tuple[Feed, str]] = {}

    def entry(self, planned: CachePlan, feed: Feed) -> CacheEntry:
        """Returns the entry for a feed's activations at a cut, cached or not."""
        # Everything that the activations depend on.
        facts = {
            # Other versions may decode images, or run graphs, differently.
            "versions": [_version(), tf.__version__],
            "cut": planned.name,
            "dtype": planned.dtype,
            "network": _network_digest(self.model),
            "weights": _weights_digest(self.model, planned.cut),
            "data": self._data_digest(feed),
            "examples": feed.examples,
        }
        return CacheEntry(self, feed, facts)

    def _data_digest(self, feed: Feed) -> str:
        # A digest reads all of the data, so it is computed once in a run.
        if id(feed) not in self._digests:
            self._digests[id(feed)] = feed, feed.digest()
        return self._digests[id(feed)][1]


class CacheEntry:
    """One set of cached activations on disk.

    Several processes may create the same set at the same time. Each writes to a
    temporary folder, and the first one that finishes renames it. One that is
    interrupted renames its folder to `<path>-partial`, which the next one takes over.

    Args:
        cache: The folder of all sets.
        feed: The examples.
        facts: Everything that the activations depend on, as JSON values.
    """

    def __init__(self, cache: CacheFolder, feed: Feed, facts: dict[str, Any]):
        self.cache, self.feed, self.facts = cache, feed, facts
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.path = cache.options.folder / f"v{FORMAT}-{key[:32]}"
        self._partial_path = self.path.with_name(f"{self.path.name}-partial")

    def find(self) -> CachedRows | None:
        """Opens cached activations; `None` if there are none. Removes unusable ones."""
        if not self.path.exists():
            return None
        verbose = self.cache.verbose
        try:
            rows = open_rows(self.path, self.facts, self.feed, verbose=verbose)
        except UnusableCacheError as error:
            if verbose:
                print_line(
                    f"The cache in {self.path} is unusable: {error}. It is recomputed."
                )
            remove(self.path)
            return None
        with contextlib.suppress(OSError):  # the folder may belong to another user
            os.utime(self.path)  # records the time of the last use
        return rows

    def create(
        self, structure: Any, columns: Sequence[Column], stack: contextlib.ExitStack
    ) -> CachedRows:
        """Creates temporary files, or takes over those of an interrupted run.

        Args:
            structure: The nest of the columns.
            columns: The columns.
            stack: Removes the temporary folder when it is closed. If a signal closes
                it, the examples that have been written remain for the next run.

        Raises:
            NotCacheableError: The files would exceed the disk limit.
            OSError: The disk is full, or the folder cannot be written to.
        """
        structure = tf.nest.map_structure(lambda _: 0, structure)
        self._folder = stack.enter_context(staging(self.path)) / self.path.name
        rows = self._take_over(structure, columns)
        size = sum(stored_bytes(column, self.feed) for column in columns)
        limit = self.cache.options.disk_limit
        if not make_room(self.path.parent, size, limit):
            raise NotCacheableError(
                f"{size / 1e9:.3g} GB exceed disk_limit, which is {limit / 1e9:.3g} GB"
            )
        if rows is None:
            self._folder.mkdir()
            rows = create_rows(self._folder, columns, structure, self.feed)
        stack.push(lambda kind, *_: self._leave(kind, rows))
        return rows

    def publish(self, rows: CachedRows) -> None:
        """Makes the rows that `create` returned visible to other runs."""
        write_index(self._folder, rows, self.facts)
        move_into_place(self._folder, self.path, first_wins=True, sync=True)

    def _take_over(
        self, structure: Any, columns: Sequence[Column]
    ) -> CachedRows | None:
        """Opens the files of an interrupted run, in the temporary folder."""
        verbose = self.cache.verbose
        try:
            os.replace(self._partial_path, self._folder)
            return reopen_rows(
                self._folder,
                columns,
                structure,
                self.feed,
                self.facts,
                verbose=verbose,
            )
        except FileNotFoundError:
            return None
        except UnusableCacheError as error:
            if verbose:
                print_line(
                    f"The cache in {self._partial_path} is unusable: {error}. It is "
                    "recomputed."
                )
            remove(self._folder)
            return None

    def _leave(self, kind: type[BaseException] | None, rows: CachedRows) -> None:
        """After a signal, keeps the examples written so far for the next run."""
        stopped = kind in (KeyboardInterrupt, SystemExit)
        if not (stopped and rows.written.any() and self._folder.is_dir()):
            return
        with contextlib.suppress(OSError):  # the disk is full, or it is another user's
            write_index(self._folder, rows, self.facts)
            remove(self._partial_path)  # left by another process interrupted meanwhile
            move_into_place(self._folder, self._partial_path)
            if self.cache.verbose:
                print_line(
                    f"Interrupted: {np.count_nonzero(rows.written):,} of "
                    f"{rows.count:,} examples are cached in {self._partial_path}. The "
                    "next run computes the others."
                )


def make_room(root: pathlib.Path, needed: int, limit: int) -> bool:
    """Removes all sets in outdated formats, then the least recently used ones.

    Args:
        root: The folder of all sets.
        needed: The bytes that are about to be written.
        limit: The bytes that all sets may take together.

    Returns:
        Whether there is room now. If `needed` exceeds `limit`, nothing is removed.
    """
    if needed > limit:
        return False
    names = [(path, _NAME.fullmatch(path.name)) for path in root.glob("*")]
    folders = {path: int(name[1] or 1) for path, name in names if name}
    sizes = {path: folder_size(path) for path in folders}
    order = lambda path: (folders[path] >= FORMAT, path.stat().st_mtime)
    for path in sorted(folders, key=order):
        if folders[path] < FORMAT or sum(sizes.values()) + needed > limit:
            del sizes[path]
            with contextlib.suppress(OSError):
                remove(path)
    return sum(sizes.values()) + needed <= limit


def folder_size(folder: pathlib.Path) -> int:
    """Returns the bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())


def _network_digest(model: keras.Model) -> str:
    """Returns a digest of the network up to the head, without its weights."""
    encoder = encoder_to_cut(model)
    trunk, _ = models.split(model)
    if encoder is None:
        return hashlib.sha256(trunk.to_json().encode()).hexdigest()
    others = [layer.get_config() for layer in trunk.layers if layer is not encoder]
    digest = hashlib.sha256(encoder.network.digest.encode())
    digest.update(json.dumps(others, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _version() -> str:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version("tlkit")
    return ""


def _weights_digest(model: keras.Model, cut: int) -> str:
    digest = hashlib.sha256()
    for variable in prefix_weights(model, cut):
        digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
    return digest.hexdigest()
