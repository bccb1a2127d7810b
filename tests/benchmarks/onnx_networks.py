"""The networks of the benchmarks as ONNX files, with the weights of their SavedModels.

Written node by node, as PyTorch exports them, batch norms apart from convolutions:
converters ask for versions of TensorFlow and NumPy that are gone.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET, IR_VERSION = 17, 9


class _Writer:
    """Collects nodes and weights; each node has one output, named like the node."""

    def __init__(self):
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, value) -> str:
        name = f"weight_{len(self.weights)}"
        array = np.ascontiguousarray(value)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes) -> str:
        name = name or f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def save(self, path: pathlib.Path, inputs: dict, outputs: dict) -> None:
        ends = [
            [helper.make_tensor_value_info(n, *spec) for n, spec in specs.items()]
            for specs in (inputs, outputs)
        ]
        graph = helper.make_graph(self.nodes, "network", *ends, self.weights)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset])
        model.ir_version = IR_VERSION
        onnx.save(model, path)


def write_resnet(model, path: pathlib.Path) -> None:
    """Writes a ResNet of `tf_keras.applications`, pictures `[batch, 224, 224, 3]`."""
    writer = _Writer()
    for layer in model.layers:
        if type(layer).__name__ == "InputLayer":
            name, order = layer.name, [0, 3, 1, 2]
            writer.add("Transpose", "images", name=name, perm=order)
        else:
            parents = layer.inbound_nodes[0].parent_nodes
            _write_layer(writer, layer, [parent.layer.name for parent in parents])
    writer.add("Flatten", writer.nodes[-1].output[0], name="features")
    images = (TensorProto.FLOAT, ["batch", 224, 224, 3])
    features = (TensorProto.FLOAT, ["batch", model.output_shape[-1]])
    writer.save(path, {"images": images}, {"features": features})


def _write_layer(writer: _Writer, layer, inputs: list[str]) -> None:
    weights, attributes = layer.get_weights(), {}
    match type(layer).__name__:
        case "Conv2D":
            op, kernel = "Conv", weights[0]
            margin = kernel.shape[0] // 2 if layer.padding == "same" else 0
            attributes = {"strides": list(layer.strides), "pads": [margin] * 4}
            weights = [kernel.transpose(3, 2, 0, 1), *weights[1:]]
        case "BatchNormalization":
            op, attributes = "BatchNormalization", {"epsilon": float(layer.epsilon)}
        case "ZeroPadding2D":
            (top, bottom), (left, right) = layer.padding
            op = "Pad"
            weights = [np.array([0, 0, top, left, 0, 0, bottom, right])]
        case "MaxPooling2D":
            op, sizes = "MaxPool", list(layer.pool_size)
            attributes = {"kernel_shape": sizes, "strides": list(layer.strides)}
        case kind:
            others = {"Activation": "Relu", "GlobalAveragePooling2D": "GlobalAverage"}
            op = {"Add": "Add", **others}[kind]
            op = "GlobalAveragePool" if op == "GlobalAverage" else op
    names = [writer.weight(value) for value in weights]
    writer.add(op, *inputs, *names, name=layer.name, **attributes)


def write_bert(weights: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
    """Writes a BERT of the Model Garden; token ids, mask and types `[batch, length]`.

    Args:
        weights: By the names that they have in the SavedModel.
        path: The file.
    """
    writer = _Writer()
    hidden = _write_embeddings(writer, weights)
    mask = writer.add("Cast", "input_mask", to=TensorProto.FLOAT)
    mask = writer.add("Unsqueeze", mask, writer.weight(np.array([1, 2])))
    blocked = writer.add("Sub", writer.weight(np.float32(1)), mask)
    blocked = writer.add("Mul", blocked, writer.weight(np.float32(-1e9)))
    count = 0
    while f"transformer/layer_{count}/output/kernel" in weights:
        scope = f"transformer/layer_{count}"
        hidden = _write_layer_of_bert(writer, weights, scope, hidden, blocked)
        count += 1
    writer.add("Identity", hidden, name="sequence_output")
    width = weights["word_embeddings/embeddings"].shape[1]
    tokens = (TensorProto.INT32, ["batch", "length"])
    names = ("input_word_ids", "input_mask", "input_type_ids")
    output = (TensorProto.FLOAT, ["batch", "length", width])
    writer.save(path, dict.fromkeys(names, tokens), {"sequence_output": output})


def _write_embeddings(writer: _Writer, weights: Mapping[str, np.ndarray]) -> str:
    tables = {
        name: writer.weight(weights[f"{name}/embeddings"])
        for name in ("word_embeddings", "position_embedding", "type_embeddings")
    }
    words = writer.add("Gather", tables["word_embeddings"], "input_word_ids")
    types = writer.add("Gather", tables["type_embeddings"], "input_type_ids")
    shape = writer.add("Shape", "input_word_ids")
    length = writer.add("Slice", shape, *(writer.weight(np.array([n])) for n in (1, 2)))
    start, axis = writer.weight(np.array([0])), writer.weight(np.array([0]))
    positions = writer.add("Slice", tables["position_embedding"], start, length, axis)
    total = writer.add("Add", writer.add("Add", words, types), positions)
    return _norm(writer, weights, "embeddings/layer_norm", total)


def _write_layer_of_bert(writer: _Writer, weights, scope: str, hidden, blocked) -> str:
    attention = f"{scope}/self_attention"
    heads, size = weights[f"{attention}/query/bias"].shape
    split = writer.weight(np.array([0, 0, heads, size]))
    query, key, value = (
        writer.add(
            "Transpose",
            writer.add(
                "Reshape",
                _project(writer, weights, f"{attention}/{name}", hidden),
                split,
            ),
            perm=order,
        )
        for name, order in (
            ("query", [0, 2, 1, 3]),
            ("key", [0, 2, 3, 1]),
            ("value", [0, 2, 1, 3]),
        )
    )
    scores = writer.add("MatMul", query, key)
    scores = writer.add("Div", scores, writer.weight(np.float32(size**0.5)))
    shares = writer.add("Softmax", writer.add("Add", scores, blocked), axis=-1)
    mixed = writer.add("MatMul", shares, value)
    mixed = writer.add("Transpose", mixed, perm=[0, 2, 1, 3])
    joined = writer.add("Reshape", mixed, writer.weight(np.array([0, 0, heads * size])))
    attended = _project(writer, weights, f"{attention}/attention_output", joined)
    hidden = _norm(
        writer,
        weights,
        f"{attention}_layer_norm",
        writer.add("Add", attended, hidden),
    )
    wide = _gelu(writer, _project(writer, weights, f"{scope}/intermediate", hidden))
    narrow = _project(writer, weights, f"{scope}/output", wide)
    total = writer.add("Add", narrow, hidden)
    return _norm(writer, weights, f"{scope}/output_layer_norm", total)


def _project(writer: _Writer, weights, scope: str, inputs: str) -> str:
    kernel, bias = weights[f"{scope}/kernel"], weights[f"{scope}/bias"].reshape(-1)
    rows = kernel.size // bias.size
    product = writer.add("MatMul", inputs, writer.weight(kernel.reshape(rows, -1)))
    return writer.add("Add", writer.weight(bias), product)


def _norm(writer: _Writer, weights, scope: str, inputs: str) -> str:
    pair = [writer.weight(weights[f"{scope}/{name}"]) for name in ("gamma", "beta")]
    return writer.add("LayerNormalization", inputs, *pair, axis=-1, epsilon=1e-12)


def _gelu(writer: _Writer, x: str) -> str:
    """With `tanh`, as the network has it; ONNX Runtime knows this form as FastGelu."""

    def number(value: float) -> str:
        return writer.weight(np.float32(value))

    cube = writer.add("Pow", x, number(3))
    inner = writer.add("Add", x, writer.add("Mul", cube, number(0.044715)))
    inner = writer.add("Mul", inner, number(float(np.sqrt(2 / np.pi))))
    outer = writer.add("Add", writer.add("Tanh", inner), number(1))
    return writer.add("Mul", writer.add("Mul", x, number(0.5)), outer)
