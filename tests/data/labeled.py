"""Small data sets whose examples can be told apart."""

import dataclasses

import numpy as np

import tlkit
from tlkit.data.examples.random_access import tensor_examples


def numbered(counts, *, labels=None, kind="array", start=0):
    """Splits to train on whose example i is the array [i, class] or the text "i"."""
    ids = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    numbers = np.arange(start, start + len(ids), dtype=np.int32)
    raws = np.stack([numbers, ids], axis=1)
    if kind != "array":
        raws = [str(number) for number in numbers]
    labels = labels or tuple("abcdefghij"[: len(counts)])
    dataset = tensor_examples(raws, ids).dataset()
    return tlkit.data.Splits(dataset, None, None, tuple(labels), kind)


def examples(dataset):
    """The elements as pairs of plain values."""
    return [
        (raw if isinstance(raw, bytes) else raw.tolist(), int(label))
        for raw, label in dataset.as_numpy_iterator()
    ]


def numbers(dataset):
    """The numbers of the examples of `numbered`."""
    found = examples(dataset)
    return [int(raw) if isinstance(raw, bytes) else raw[0] for raw, _ in found]


def streaming(splits):
    """The same splits, without random access."""
    streams = {
        name: dataset and dataset.map(lambda raw, label: (raw, label))
        for name in ("train", "validation", "test")
        for dataset in [getattr(splits, name)]
    }
    return dataclasses.replace(splits, **streams)
