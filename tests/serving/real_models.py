"""Classifiers around the sample encoders, and a few hundred real examples for them."""

import numpy as np

import tlkit


def digits():
    """Zeros and ones of MNIST, for ResNet-50 at half width: `(splits, model)`."""
    data = tlkit.samples.data("mnist-5k")
    chosen = np.flatnonzero(data.labels < 2)[::4]
    splits = tlkit.data.arrays(
        data.images[chosen], data.labels[chosen], labels=["0", "1"], test=0
    )
    source = tlkit.samples.encoder("resnet50")
    return splits, tlkit.image_classifier(source, splits.labels, image_size=64)


def reuters():
    """News of two kinds, for MiniLM: `(splits, model)`."""
    data = tlkit.samples.data("reuters-r8")
    pairs = list(zip(data.train_texts, data.train_labels, strict=True))
    both = [[pair for pair in pairs if pair[1] == name] for name in ("acq", "earn")]
    chosen = [pair for found in both for pair in found[:150]]
    splits = tlkit.data.arrays(*zip(*chosen, strict=True), test=0)
    source = tlkit.samples.encoder("minilm")
    return splits, tlkit.text_classifier(source, splits.labels, length=32)


REAL = {"resnet50": digits, "minilm": reuters}
