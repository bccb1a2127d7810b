"""A tiny encoder and tiny data, for notebooks that the quick tests run."""

import pathlib
import tempfile

import tlkit
from tests.tiny import write_text_encoder


def encoder():
    return write_text_encoder(pathlib.Path(tempfile.mkdtemp()) / "encoder" / "1")


def splits():
    texts = ["good film", "the good", "bad film", "the bad !"] * 10
    return tlkit.data.arrays(texts, ["good", "good", "bad", "bad"] * 10)
