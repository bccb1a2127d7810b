"""The examples in the docstrings of public names run and give the results they show.

An example is a fenced block of Python, whose results are comments, or a doctest. It
runs in a folder with small encoders and small data under the names that it uses.
"""

import ast
import contextlib
import doctest
import functools
import inspect
import io
import pathlib
import re
import shutil
import textwrap
import tokenize
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder

PACKAGES = ("", "data", "reports", "samples", "sources", "tasks", "training")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
NUMBER = re.compile(r"-?\d[\d,]*(\.\d+)?(e[+-]?\d+)?")
RESULT = re.compile(r"[\[({'\"\d-]|(None|True|False)\b|[A-Z]\w*\(")
# The demo trains a real encoder; the long tests of the command line run it.
NOT_RUN = ("tlkit.samples.demo",)


def public_names():
    """Yields the full name and the docstring of each public object and method."""
    seen = set()
    for package in PACKAGES:
        module = getattr(tlkit, package) if package else tlkit
        for name, value in vars(module).items():
            is_ours = getattr(value, "__module__", "").startswith("tlkit.")
            if name.startswith("_") or not is_ours or id(value) in seen:
                continue
            seen.add(id(value))
            full_name = ".".join(filter(None, ("tlkit", package, name)))
            yield full_name, inspect.getdoc(value)
            members = vars(value) if inspect.isclass(value) else {}
            for attribute, member in members.items():
                if not attribute.startswith("_") and getattr(member, "__doc__", None):
                    yield f"{full_name}.{attribute}", inspect.getdoc(member)


EXAMPLES = {
    name: text.partition("Example:")[2]
    for name, text in public_names()
    if text and "Example:" in text
}


def steps(example):
    """Yields the code of each statement and the result that is shown for it."""
    if ">>>" in example:
        for step in doctest.DocTestParser().get_examples(example):
            yield step.source, step.want
        return
    code = textwrap.dedent(re.search(r"```python\n(.*?)```", example, re.S)[1])
    lines = code.splitlines()
    tokens = tokenize.generate_tokens(io.StringIO(code).readline)
    comments = {t.start[0]: t.string[1:] for t in tokens if t.type == tokenize.COMMENT}
    statements = ast.parse(code).body
    ends = [statement.lineno for statement in statements[1:]] + [len(lines) + 1]
    for statement, end in zip(statements, ends, strict=True):
        source = "\n".join(lines[statement.lineno - 1 : statement.end_lineno])
        rows = [row for row in range(statement.end_lineno, end) if row in comments]
        want = textwrap.dedent("\n".join(comments[row] for row in rows))
        if isinstance(statement, ast.Expr):
            is_result = source.startswith("print(") or RESULT.match(want.strip())
            yield source, want if is_result else ""
        else:
            yield source, ""


def output_of(source, names):
    """Runs a statement and returns what an interactive session prints."""
    code = compile(source + "\n", "example", "single")
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(code, names)
    return out.getvalue()


def agree(want, got, is_exact):
    want, got = (text.replace('"', "'").replace("…", "...") for text in (want, got))
    if not is_exact:
        want, got = (NUMBER.sub("0", text) for text in (want, got))
    return doctest.OutputChecker().check_output(want + "\n", got, FLAGS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the files that examples name, small."""
    folder = tmp_path_factory.mktemp("examples")
    shelf = folder / "saved_models"
    for name in ("resnet50", "resnet_v2_50"):
        write_image_encoder(shelf / name / "1")
    for name in ("minilm", "bert_en_uncased", "small_bert_L-4_H-512"):
        write_text_encoder(shelf / name / "1")
    images, labels = small_images()
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        path = folder / "flowers" / label / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tf.io.encode_jpeg(image).numpy())
    (folder / "rose.jpg").write_bytes(tf.io.encode_jpeg(images[0]).numpy())
    texts, labels = small_texts()
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        split = "train" if number < 30 else "test"
        path = folder / "aclImdb" / split / label / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    rows = [f"{text},{number % 5 + 1}" for number, text in enumerate(texts)]
    (folder / "reviews.csv").write_text("\n".join(["review,stars", *rows]))
    rows = [f"{text},{text},{label}" for text, label in zip(texts, labels, strict=True)]
    (folder / "snli.csv").write_text("\n".join(["premise,hypothesis,y", *rows]))
    splits = tlkit.data.arrays(*small_images())
    tlkit.data.write_shards(splits, folder / "flowers-shards", verbose=0)
    (folder / "imagenet").mkdir()
    for name in ("train-0", "validation-0"):
        write_records(folder / "imagenet" / name, images[:8])
    return folder


def write_records(path, images):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for number, image in enumerate(images):
            encoded = tf.io.encode_jpeg(image).numpy()
            example = tf.train.Example()
            feature = example.features.feature
            feature["image/encoded"].bytes_list.value.append(encoded)
            feature["image/class/label"].int64_list.value.append(number % 2 + 1)
            writer.write(example.SerializeToString())


def small_images():
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3)).astype(np.uint8)
    return images, ["daisy", "rose", "daisy", "daisy", "rose"] * 8


def small_texts():
    texts = ["good film", "the good", "bad film", "the bad"] * 10
    return texts, ["crude", "earn"] * 20


@pytest.fixture(scope="module")
def stand_ins(folder):
    """Names that examples use without defining them, for images and for texts."""
    images = tlkit.data.arrays(*small_images())
    texts = tlkit.data.arrays(*small_texts())
    image_model = tlkit.image_classifier(
        folder / "saved_models/resnet50", images.labels, image_size=8
    )
    text_model = tlkit.text_classifier(folder / "saved_models/minilm", texts.labels)
    text_model.get_layer("head").dense.bias.assign([9.0, 0.0])  # predicts "crude"
    kinds = {"image": (images, image_model), "text": (texts, text_model)}
    return {
        kind: {
            "splits": splits,
            "ours": splits,
            "public": splits,
            "model": model,
            "encoder": model.get_layer("encoder"),
            "labels": splits.labels,
            "names": splits.labels,
            "images": small_images()[0].astype(np.float32) / 255,
            "x": small_images()[0],
            "y": np.arange(40) % 2,
        }
        for kind, (splits, model) in kinds.items()
    }


@pytest.fixture(scope="module")
def report(stand_ins):
    splits, model = (stand_ins["text"][name] for name in ("splits", "model"))
    phase = tlkit.Phase("head", epochs=1, learning_rate=1e-5)
    return tlkit.fit(model, splits, schedule=phase, verbose=0)


@pytest.fixture
def small(folder, report, stand_ins, monkeypatch):
    """Replaces what takes long or reads large data; `fit` checks its arguments only."""
    fit, export, find = tlkit.fit, tlkit.export, tlkit.find_learning_rate
    splits = {kind: names["splits"] for kind, names in stand_ins.items()}
    shelf = folder / "saved_models"

    def no_fit(*arguments, **options):
        inspect.signature(fit).bind(*arguments, **options)
        return report

    monkeypatch.chdir(folder)
    monkeypatch.setenv("TLKIT_SAVED_MODELS", str(shelf))
    monkeypatch.setenv("TLKIT_CACHE", str(folder / "cache"))
    quick = functools.partial(find, steps=20, verbose=0)
    monkeypatch.setattr(tlkit, "fit", no_fit)
    monkeypatch.setattr(tlkit, "find_learning_rate", quick)
    monkeypatch.setattr(
        tlkit, "export", functools.partial(export, check=False, verbose=0)
    )
    monkeypatch.setattr(tlkit.data, "tfds", lambda name, **_: splits["image"])
    monkeypatch.setattr(tlkit.samples, "encoder", lambda name: shelf / name)
    monkeypatch.setattr(tlkit.samples, "splits", lambda name: splits["text"])
    texts = types.SimpleNamespace(train_labels=("earn", "crude"))
    monkeypatch.setattr(tlkit.samples, "data", lambda name: texts)
    x, y = small_images()[0], np.arange(40) % 2
    mnist = types.SimpleNamespace(load_data=lambda: ((x, y), (x[:8], y[:8])))
    monkeypatch.setattr(keras.datasets, "fashion_mnist", mnist)


def test_every_public_example_is_found():
    assert len(EXAMPLES) > 40
    assert set(NOT_RUN) <= set(EXAMPLES)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_public_examples_show_their_results(name):
    assert any(want for _, want in steps(EXAMPLES[name]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(set(EXAMPLES) - set(NOT_RUN)))
def test_public_examples_run(name, stand_ins, small):
    example = EXAMPLES[name]
    is_image = re.search("image|augment|daisy|rose.jpg|resnet|stage", example)
    if "write_shards" in example:  # which writes to new folders only
        shutil.rmtree("flowers-shards")
    names = {"tlkit": tlkit, "keras": keras, "np": np, "tf": tf, "pathlib": pathlib}
    own = stand_ins["image" if is_image else "text"]
    names |= own
    used = {name for name in own if re.search(rf"\b{name}\b", example)}
    is_exact = not used and not re.search(r"samples|datasets|flowers|\.csv", example)
    for source, want in steps(example):
        got = output_of(source, names)
        if want:
            assert agree(want, got, is_exact), f"{source}\nshows {want}\ngives {got}"
