"""What rides along with an export for people, tools and servers, in `assets.extra`.

Requests that TF Serving sends itself before it answers others.

The first request after a start makes kernels and buffers, and takes many times as long.
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from ..encoders import find_encoder
from ..models import task_of
from ..reports import Report
from .export_examples import Rows, columns, kind_of
from .lite import LiteReport
from .parity_check import Parity
from .signatures import EMBED, RAW

# Sizes to which TF Serving fills up what it has put together.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_WARM_UP_SHARE = 0.02  # of the export, at most

_BATCHING = """\
# tensorflow_model_server --enable_batching=true --batching_parameters_file=…
max_batch_size {{ value: {largest} }}
batch_timeout_micros {{ value: 2000 }}
max_enqueued_batches {{ value: 100 }}
num_batch_threads {{ value: 4 }}
{sizes}
"""
_MODELS = """\
# tensorflow_model_server --model_config_file=…
# The two newest versions are served, so that requests in flight and clients that ask
# for the one before are answered; go back by removing the newest folder.
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 2 }} }}
  }}
}}
"""


def write_papers(
    folder: pathlib.Path, model: keras.Model, name: str, report: Report | None
) -> None:
    """Writes the report and the server's settings into an export's `assets.extra`.

    Args:
        folder: The export's folder.
        model: What was exported.
        name: The name under which it will be served.
        report: What `tlkit.fit` returned, or `None`.
    """
    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    if report is not None:
        report.save(extra)
    sizes = "\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES)
    batching = _BATCHING.format(largest=BATCH_SIZES[-1], sizes=sizes)
    (extra / "batching.config").write_text(batching, encoding="utf-8")
    (extra / "models.config").write_text(_MODELS.format(name=name), encoding="utf-8")


def write_requests(
    folder: pathlib.Path, model: keras.Model, name: str, rows: Rows
) -> None:
    """Writes warm-up requests of each signature and of several sizes.

    Args:
        folder: The export's folder.
        model: What was exported.
        name: The name under which it will be served.
        rows: Examples; the small ones among them are taken, since the file is to stay
            small beside the weights.
    """
    raws = sorted(rows.raws, key=_bytes)[: max(1, len(rows) // 2)]
    typical, largest = raws[-1], BATCH_SIZES[-1]
    files = (path for path in folder.rglob("*") if path.is_file())
    room = _WARM_UP_SHARE * sum(path.stat().st_size for path in files)
    largest = min(largest, max(1, int(room // max(1, _bytes(typical))) - 2))
    requests = [
        (signature, columns(model, [typical] * size))
        for signature, sizes in ((RAW, sorted({1, largest})), (EMBED, [1]))
        for size in sizes
    ]
    write_warm_up(folder / "assets.extra" / FILE, name, requests)


def _bytes(raw: Any) -> int:
    if isinstance(raw, tuple):
        return sum(len(text) for text in raw)
    return len(raw) if isinstance(raw, bytes) else raw.nbytes


def write_facts(
    folder: pathlib.Path,
    model: keras.Model,
    name: str,
    report: Report | None,
    parity: Parity | None,
    small: LiteReport | None = None,
) -> None:
    """Writes what the export is: `tlkit_export.json` for tools, a card for people.

    Args:
        folder: The export's folder.
        model: What was exported.
        name: The name under which it will be served.
        report: What `tlkit.fit` returned, or `None`.
        parity: How far its answers are from the model's; `None` if not compared.
        small: What the small model beside it loses, if there is one.
    """
    encoder = find_encoder(model)
    facts = {
        "name": name,
        "labels": list(task_of(model).labels),
        "encoder": encoder.details.get("name"),
        "licence": encoder.details.get("licence"),
        "kind": encoder.details.get("kind"),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "parity": None if parity is None else dataclasses.asdict(parity),
        "small": None if small is None else _small_facts(small),
    }
    extra = folder / "assets.extra"
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (extra / "tlkit_export.json").write_text(text + "\n", encoding="utf-8")
    card = _card(model, facts, report, parity, small)
    (extra / "model_card.md").write_text(card, encoding="utf-8")


def _small_facts(small: LiteReport) -> dict[str, Any]:
    facts = dataclasses.asdict(small) | {"accuracy_drop": small.accuracy_drop}
    return facts | {"path": small.path.name}


def _card(model, facts: dict[str, Any], report, parity, small) -> str:
    labels = facts["labels"]
    shown = ", ".join(labels[:50]) + (", …" if len(labels) > 50 else "")
    licence = facts["licence"] or "not known; see where it came from"
    checked = "not checked" if parity is None else str(parity)
    lines = [
        f"# {facts['name']}",
        "",
        f"Says which of {len(labels)} labels {_ARTICLE[kind_of(model)]} has: {shown}.",
        "",
        f"- Encoder: {facts['encoder']} (licence: {licence})",
        f"- Parameters: {model.count_params():,}",
        f"- Written with TensorFlow {facts['tensorflow']}, Keras {facts['keras']}",
        f"- Served answers against the model's: {checked}",
        *_small_lines(small),
        "",
        "## What to ask",
        "",
        *_asking(kind_of(model)),
        "",
        "## How good it is",
        "",
        *_figures(report),
    ]
    return "\n".join(lines) + "\n"


def _small_lines(small: LiteReport | None) -> list[str]:
    if small is None:
        return []
    _, *lines = str(small).splitlines()
    size = f"{small.precision}, {small.megabytes:.2f} MB"
    return [
        f"- For LiteRT: `assets.extra/{small.path.name}`, {size}; {'; '.join(lines)}"
    ]


_ARTICLE = {
    "image": "a picture",
    "text": "a text",
    "pair": "a pair of texts",
    "numbers": "an example",
}


def _asking(kind: str) -> list[str]:
    takes = {
        "image": "`image_bytes`: encoded JPEG, PNG, GIF, BMP, WebP pictures, any size",
        "text": "`text`: texts in UTF-8",
        "pair": "`text` and `text_pair`: texts in UTF-8",
        "numbers": "`inputs`: arrays of numbers",
    }[kind]
    lines = [
        f"- `serving_default` takes {takes}; it gives `label`, `score`, `scores` (of "
        "each label), `labels`, `top_labels` and `top_scores`.",
        "- `embed` takes the same; it gives `embedding`, the features before the head.",
    ]
    if kind != "numbers":
        lines.append("- `tensors` takes what the model itself takes, prepared.")
    if kind == "image":
        lines.append(
            '- A picture that cannot be decoded has the label `""` and scores of 0.'
        )
    return lines


def _figures(report: Report | None) -> list[str]:
    if report is None:
        return ["No report came with it."]
    lines = []
    for split, found in report.evaluations.items():
        lines += [
            f"On the {split} split, {found.examples:,} examples: accuracy "
            f"{found.accuracy:.4f}, macro F1 {found.macro_f1:.4f}.",
            "",
        ]
        if split == list(report.evaluations)[-1]:
            lines += [
                "| label | precision | recall | F1 | examples |",
                "|---|---|---|---|---|",
                *(
                    f"| {row.label} | {row.precision:.3f} | {row.recall:.3f} | "
                    f"{row.f1:.3f} | {row.support:,} |"
                    for row in found.per_class
                ),
                "",
            ]
    return [*lines, "```", str(report), "```"]


# === Warm up ===


FILE = "tf_serving_warmup_requests"

# Numbers of the fields, from tensorflow_serving/apis: prediction_log.proto,
# predict.proto and model.proto. `tensorflow-serving-api`, which has the messages, is a
# package for clients that brings gRPC along; tests/serving/test_extra_files.py reads
# the file with it.
_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _INPUTS = 1, 2
_NAME, _SIGNATURE = 1, 3
_KEY, _VALUE = 1, 2


def write_warm_up(
    path: pathlib.Path, model: str, requests: Iterable[tuple[str, Mapping[str, Any]]]
) -> None:
    """Writes the file of warm-up requests, a TFRecord of `PredictionLog`.

    Args:
        path: The file, `assets.extra/tf_serving_warmup_requests` in an export.
        model: The name of the model.
        requests: The signature and the inputs by name of each; at most 1,000.
    """
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, inputs in requests:
            writer.write(_prediction_log(model, signature, inputs))


def _prediction_log(model: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    spec = _field(_NAME, model.encode()) + _field(_SIGNATURE, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for name, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, name.encode()) + _field(_VALUE, tensor))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, a string or a message, as protocol buffers write it."""
    # https://protobuf.dev/programming-guides/encoding: 2 says that a length follows.
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])
