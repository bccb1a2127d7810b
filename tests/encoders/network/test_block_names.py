"""Names of blocks, from the names that real encoders give their variables."""

import pytest

from tlkit.encoders.network.block_names import name_sections


def resnet(stem, unit, units=((2, 3), (3, 4), (4, 6), (5, 3)), last=()):
    """Sections of a ResNet: `stem`, then `unit` with stage and unit filled in."""
    sections = [stem]
    for stage, count in units:
        sections += [
            [name.format(stage=stage, unit=k, letter=chr(96 + k)) for name in unit]
            for k in range(1, count + 1)
        ]
    return [*sections, *([last] if last else [])]


KERAS_RESNET = resnet(
    ["conv1_conv/kernel", "conv1_bn/gamma"],
    ["conv{stage}_block{unit}_1_conv/kernel", "conv{stage}_block{unit}_3_bn/gamma"],
)
SLIM = "resnet_v2_50/block{stage}/unit_{unit}/bottleneck_v2"
SLIM_RESNET = resnet(
    ["resnet_v2_50/conv1/weights", "resnet_v2_50/conv1/biases"],
    [f"{SLIM}/preact/gamma", f"{SLIM}/conv1/weights"],
    ((1, 3), (2, 4), (3, 6), (4, 3)),
    ["resnet_v2_50/postnorm/gamma", "resnet_v2_50/postnorm/beta"],
)
CAFFE_RESNET = resnet(
    ["conv_1/kernel", "bn_1/gamma"],
    ["conv_stage{stage}_block{unit}_branch2a/kernel"]
    + ["bn_stage{stage}_block{unit}_branch2a/gamma"],
    ((0, 3), (1, 4), (2, 6), (3, 3)),
)
VGG = [
    [f"block{block}_conv{k}/kernel", f"block{block}_conv{k}/bias"]
    for block, count in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))
    for k in range(1, count + 1)
]


def bert(prefix, layer, embeddings, pooler):
    layers = [
        [f"{prefix}{layer.format(i)}/{half}/kernel", f"{prefix}{layer.format(i)}/bias"]
        for i in range(12)
        for half in ("self_attention/query", "intermediate")
    ]
    return [
        [f"{prefix}{embeddings}"],
        *layers,
        *([[f"{prefix}{pooler}"]] * bool(pooler)),
    ]


GARDEN_BERT = bert(
    "", "transformer/layer_{}", "word_embeddings/embeddings", "pooler_transform/kernel"
)
HUB_BERT = bert(
    "bert/", "transformer_layer_{}", "token_embedding/embeddings", "pooled_dense/kernel"
)
HUGGING_BERT = bert(
    "tf_bert_model/bert/",
    "encoder/layer_._{}",
    "embeddings/word_embeddings/weight",
    "pooler/dense/kernel",
)
VIT = [
    ["embedding/kernel", "pos_embedding"],
    *([f"Transformer/encoderblock_{i}/MlpBlock_3/Dense_0/kernel"] for i in range(12)),
    ["Transformer/encoder_norm/scale"],
]
MOBILENET_KERAS = [
    ["Conv1/kernel", "bn_Conv1/gamma"],
    ["expanded_conv_depthwise/depthwise_kernel"],
    *([f"block_{i}_expand/kernel", f"block_{i}_project/kernel"] for i in range(1, 17)),
    ["Conv_1/kernel", "Conv_1_bn/gamma"],
]
MOBILENET_SLIM = [
    ["MobilenetV2/Conv/weights"],
    *([f"MobilenetV2/expanded_conv_{i}/expand/weights"] for i in range(1, 17)),
    ["MobilenetV2/Conv_1/weights"],
]
EFFICIENTNET = [
    ["stem_conv/kernel", "stem_bn/gamma"],
    *(
        [f"block{stage}{letter}_expand_conv/kernel", f"block{stage}{letter}_bn/gamma"]
        for stage, letters in ((1, "a"), (2, "ab"), (3, "ab"), (4, "abc"))
        for letter in letters
    ),
    ["top_conv/kernel", "top_bn/gamma"],
]
EFFICIENTNET_HUB = [
    ["efficientnet-b0/stem/conv2d/kernel"],
    *([f"efficientnet-b0/blocks_{i}/conv2d/kernel"] for i in range(16)),
    ["efficientnet-b0/head/conv2d/kernel"],
]
DENSENET = resnet(
    ["conv1/conv/kernel", "conv1/bn/gamma"],
    ["conv{stage}_block{unit}_0_bn/gamma", "conv{stage}_block{unit}_1_conv/kernel"],
    ((2, 6), (3, 12)),
)


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        (KERAS_RESNET, ["conv1", "conv2", "conv3", "conv4", "conv5"]),
        (SLIM_RESNET, ["stem", "block1", "block2", "block3", "block4", "postnorm"]),
        (CAFFE_RESNET, ["stem", "stage0", "stage1", "stage2", "stage3"]),
        (VGG, [f"block{i}" for i in range(1, 6)]),
        (GARDEN_BERT, ["embeddings", *(f"layer_{i}" for i in range(12)), "pooler"]),
        (HUB_BERT, ["embeddings", *(f"layer_{i}" for i in range(12)), "pooler"]),
        (HUGGING_BERT, ["embeddings", *(f"layer_{i}" for i in range(12)), "pooler"]),
        (
            VIT,
            ["embeddings", *(f"encoderblock{i}" for i in range(12)), "encoder_norm"],
        ),
        (
            MOBILENET_KERAS,
            ["stem", *(f"block{i}" for i in range(1, 17)), "Conv1"],
        ),
        (MOBILENET_SLIM, ["stem", *(f"conv{i}" for i in range(1, 17)), "Conv1"]),
        (EFFICIENTNET, ["stem", "block1", "block2", "block3", "block4", "top"]),
        (EFFICIENTNET_HUB, ["stem", *(f"blocks{i}" for i in range(16)), "head"]),
        (DENSENET, ["conv1", "conv2", "conv3"]),
        ([[f"v{2 * i}", f"v{2 * i + 1}"] for i in range(4)], None),
        ([[f"conv2d_{i}/kernel"] for i in range(4)], None),
        ([[f"dense_{i}/kernel"] for i in range(3)], ["dense0", "dense1", "dense2"]),
    ],
    ids=[
        "keras-resnet",
        "slim-resnet",
        "caffe-resnet",
        "vgg",
        "garden-bert",
        "hub-bert",
        "hugging-bert",
        "vit",
        "keras-mobilenet",
        "slim-mobilenet",
        "keras-efficientnet",
        "hub-efficientnet",
        "densenet",
        "numbers",
        "conv2d",
        "dense",
    ],
)
def test_blocks(sections, expected):
    names = name_sections(sections)
    assert len(names) == len(sections)
    blocks = list(dict.fromkeys(names))
    # Neighbors only: a name never comes back.
    runs = [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
    assert runs == blocks
    if expected is None:
        expected = [f"block_{i:02d}" for i in range(len(sections))]
    assert blocks == expected


def test_units_of_a_resnet():
    names = name_sections(KERAS_RESNET)
    counts = [names.count(f"conv{stage}") for stage in (1, 2, 3, 4, 5)]
    assert counts == [1, 3, 4, 6, 3]
