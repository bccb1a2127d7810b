"""Writes an export's `assets.extra`: a model card, facts, and files for the server.

The first request after a start compiles kernels and allocates buffers, and takes many
times as long. TF Serving therefore runs warm-up requests before it serves:
https://www.tensorflow.org/tfx/serving/saved_model_warmup
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from ..models import facts_of, task_of
from ..reports import Report
from .export_examples import ExportExamples, example_kind, signature_inputs
from .lite import LiteReport
from .parity_check import Parity
from .signatures import EMBED, RAW

WARM_UP_FILE = "tf_serving_warmup_requests"
# TF Serving pads the batches that it assembles to these sizes.
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_MAX_WARM_UP_FRACTION = 0.02  # of the export's size

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
# The two newest versions are served, so that requests in flight and clients of the
# previous version get responses. To go back, remove the newest folder.
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    model_version_policy {{ latest {{ num_versions: 2 }} }}
  }}
}}
"""
_EXAMPLE = {
    "image": "an image",
    "text": "a text",
    "pair": "a pair of texts",
    "numbers": "an array of numbers",
}
_INPUTS = {
    "image": "`image_bytes`: encoded JPEG, PNG, GIF, BMP, WebP images, any size",
    "text": "`text`: texts in UTF-8",
    "pair": "`text` and `text_pair`: texts in UTF-8",
    "numbers": "`inputs`: arrays of numbers",
}

# Field numbers of tensorflow_serving/apis: prediction_log.proto, predict.proto and
# model.proto. The package with these messages, `tensorflow-serving-api`, depends on
# gRPC; tests/serving/test_extra_files.py reads the file with it.
_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _REQUEST_INPUTS = 1, 2
_NAME, _SIGNATURE = 1, 3
_KEY, _VALUE = 1, 2


def write_server_files(folder: pathlib.Path, name: str, report: Report | None) -> None:
    """Writes the report, and the server's settings for a model called `name`."""
    extra = folder / "assets.extra"
    extra.mkdir(exist_ok=True)
    if report is not None:
        report.save(extra)
    sizes = "\n".join(f"allowed_batch_sizes: {size}" for size in BATCH_SIZES)
    batching = _BATCHING.format(largest=BATCH_SIZES[-1], sizes=sizes)
    (extra / "batching.config").write_text(batching, encoding="utf-8")
    (extra / "models.config").write_text(_MODELS.format(name=name), encoding="utf-8")


def write_warm_up_requests(
    folder: pathlib.Path, model: keras.Model, name: str, examples: ExportExamples
) -> None:
    """Writes warm-up requests for `serving_default` and `embed`.

    A request repeats one example of about the median size, once or up to 32 times, but
    no more often than 2 % of the export's size allow for the file.
    """
    raws = sorted(examples.raws, key=_size)[: max(1, len(examples) // 2)]
    typical, largest = raws[-1], BATCH_SIZES[-1]
    files = (path for path in folder.rglob("*") if path.is_file())
    limit = _MAX_WARM_UP_FRACTION * sum(path.stat().st_size for path in files)
    largest = min(largest, max(1, int(limit // max(1, _size(typical))) - 2))
    path = folder / "assets.extra" / WARM_UP_FILE
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, sizes in ((RAW, sorted({1, largest})), (EMBED, [1])):
            for size in sizes:
                inputs = signature_inputs(model, [typical] * size)
                writer.write(_prediction_log(name, signature, inputs))


def write_description(
    folder: pathlib.Path,
    model: keras.Model,
    name: str,
    report: Report | None,
    parity: Parity | None,
    lite: LiteReport | None,
) -> None:
    """Writes `tlkit_export.json`, for programs, and `model_card.md`, for people."""
    encoder = facts_of(model)
    facts = {
        "name": name,
        "labels": list(task_of(model).labels),
        "encoder": encoder.name,
        "licence": encoder.licence,
        "kind": encoder.kind,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "parity": None if parity is None else dataclasses.asdict(parity),
        "small": None if lite is None else _lite_facts(lite),
    }
    extra = folder / "assets.extra"
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (extra / "tlkit_export.json").write_text(text + "\n", encoding="utf-8")
    card = _card(model, facts, report, parity, lite)
    (extra / "model_card.md").write_text(card, encoding="utf-8")


def _lite_facts(lite: LiteReport) -> dict[str, Any]:
    facts = dataclasses.asdict(lite) | {"accuracy_drop": lite.accuracy_drop}
    return facts | {"path": lite.path.name}


def _card(model, facts: dict[str, Any], report, parity, lite) -> str:
    labels, kind = facts["labels"], example_kind(model)
    shown = ", ".join(labels[:50]) + (", …" if len(labels) > 50 else "")
    licence = facts["licence"] or "not known; see its source"
    checked = "not checked" if parity is None else str(parity)
    lines = [
        f"# {facts['name']}",
        "",
        f"Gives {_EXAMPLE[kind]} one of {len(labels)} labels: {shown}.",
        "",
        f"- Encoder: {facts['encoder']} (licence: {licence})",
        f"- Parameters: {model.count_params():,}",
        f"- Written with TensorFlow {facts['tensorflow']}, Keras {facts['keras']}",
        f"- Served predictions against the model's: {checked}",
        *_lite_lines(lite),
        "",
        "## Signatures",
        "",
        *_signature_lines(kind),
        "",
        "## Evaluation",
        "",
        *_evaluation_lines(report),
    ]
    return "\n".join(lines) + "\n"


def _lite_lines(lite: LiteReport | None) -> list[str]:
    if lite is None:
        return []
    _, *lines = str(lite).splitlines()
    path = f"`assets.extra/{lite.path.name}`"
    size = f"{lite.precision}, {lite.megabytes:.2f} MB"
    return [f"- For LiteRT: {path}, {size}; {'; '.join(lines)}"]


def _signature_lines(kind: str) -> list[str]:
    lines = [
        f"- `serving_default` takes {_INPUTS[kind]}; it returns `label`, `score`, "
        "`scores` (of each label), `labels`, `top_labels` and `top_scores`.",
        "- `embed` takes the same; it returns `embedding`, the input of the head.",
    ]
    if kind != "numbers":
        lines.append("- `tensors` takes the model's own, preprocessed inputs.")
    if kind == "image":
        lines.append(
            '- An image that cannot be decoded gets the label `""` and scores of 0.'
        )
    return lines


def _evaluation_lines(report: Report | None) -> list[str]:
    if report is None:
        return ["There is no report of the training."]
    lines = []
    for split, evaluation in report.evaluations.items():
        lines += [
            f"On the {split} split, {evaluation.examples:,} examples: accuracy "
            f"{evaluation.accuracy:.4f}, macro F1 {evaluation.macro_f1:.4f}.",
            "",
        ]
        if split == list(report.evaluations)[-1]:
            lines += [
                "| label | precision | recall | F1 | examples |",
                "|---|---|---|---|---|",
                *(
                    f"| {row.label} | {row.precision:.3f} | {row.recall:.3f} | "
                    f"{row.f1:.3f} | {row.support:,} |"
                    for row in evaluation.per_class
                ),
                "",
            ]
    return [*lines, "```", str(report), "```"]


def _prediction_log(model: str, signature: str, inputs: Mapping[str, Any]) -> bytes:
    spec = _field(_NAME, model.encode()) + _field(_SIGNATURE, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for name, values in inputs.items():
        tensor = tf.make_tensor_proto(values).SerializeToString()
        entry = _field(_KEY, name.encode()) + _field(_VALUE, tensor)
        request += _field(_REQUEST_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """Encodes a field of bytes, a string or a message as protocol buffers do."""
    # https://protobuf.dev/programming-guides/encoding: in type 2, a length comes first.
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = bytearray()
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _size(raw: Any) -> int:
    """Returns the size of a raw example in bytes."""
    if isinstance(raw, tuple):
        return sum(len(text) for text in raw)
    return len(raw) if isinstance(raw, bytes) else raw.nbytes
