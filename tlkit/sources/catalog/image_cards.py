"""Cards of image encoders.

Tested in tests/sources/catalog/test_catalog.py.
"""

from collections.abc import Iterator

from .cards import Card

_ANY_SIZE = "any image size works"
_FIXED_SIZE = "takes this size only"


def image_cards() -> Iterator[Card]:
    """Yields the cards, grouped by family."""
    yield from _resnets()
    slug = "inception-v3/tensorFlow2/feature-vector/2"
    yield _imagenet("inception_v3", slug, size=299, note=_ANY_SIZE)
    yield from _vggs()
    yield from _mobilenets()
    yield from _efficientnets()
    yield from _bits()
    yield from _vits()


def _resnets() -> Iterator[Card]:
    for version in (1, 2):
        for depth in (50, 101, 152):
            slug = f"resnet-v{version}/tensorFlow2/{depth}-feature-vector/2"
            yield _imagenet(f"resnet_v{version}_{depth}", slug, note=_ANY_SIZE)


def _vggs() -> Iterator[Card]:
    for depth in (16, 19):
        yield Card(
            name=f"vgg{depth}",
            kind="image",
            preset=f"vgg_{depth}_imagenet",
            image_size=224,
            # keras-hub has torchvision's weights, keras.applications has Caffe's.
            pixels="torch",
            note="never on TF Hub; for Caffe's weights give keras.applications."
            f"VGG{depth}(include_top=False, pooling='avg')",
        )


def _mobilenets() -> Iterator[Card]:
    sizes = (96, 128, 160, 192, 224)
    widths = [(w, s) for w in ("035", "050", "075", "100") for s in sizes]
    for width, size in [*widths, ("130", 224), ("140", 224)]:
        slug = f"mobilenet-v2/tensorFlow2/{width}-{size}-feature-vector/2"
        name = f"mobilenet_v2_{width}_{size}"
        yield _imagenet(name, slug, size=size, note=_FIXED_SIZE)
    for scale in ("small", "large"):
        for width in ("075", "100"):
            slug = f"mobilenet-v3/tensorFlow2/{scale}-{width}-224-feature-vector/1"
            name = f"mobilenet_v3_{scale}_{width}_224"
            yield _imagenet(name, slug, note=_FIXED_SIZE)


def _efficientnets() -> Iterator[Card]:
    sizes = {"b0": 224, "b1": 240, "b2": 260, "b3": 300}
    sizes |= {"s": 384, "m": 480, "l": 480, "xl": 512}
    for data in ("imagenet1k", "imagenet21k", "imagenet21k_ft1k"):
        for variant, size in sizes.items():
            if (data, variant) == ("imagenet1k", "xl"):
                continue
            # Where TF Hub had no version 1, its version 2 is version 1 on Kaggle.
            is_first = data != "imagenet1k" and variant not in ("s", "m", "l")
            slug = f"{data}-{variant}-feature-vector".replace("_", "-")
            short = variant if data == "imagenet1k" else f"{data}_{variant}"
            yield _imagenet(
                f"efficientnet_v2_{short}",
                f"efficientnet-v2/tensorFlow2/{slug}/{1 if is_first else 2}",
                tfhub=f"efficientnet_v2_{data}_{variant}/feature_vector/2",
                size=size,
                note=_FIXED_SIZE,
            )


def _bits() -> Iterator[Card]:
    for data in ("m", "s"):
        for size in ("r50x1", "r50x3", "r101x1", "r101x3", "r152x4"):
            yield _image(
                f"bit_{data}_{size}",
                tfhub=f"google/bit/{data}-{size}/1",
                kaggle=f"google/bit/tensorFlow2/{data}-{size}/1",
                note=f"{_ANY_SIZE}; group norms, so no batch norm",
            )


def _vits() -> Iterator[Card]:
    for variant in ("s16", "b8", "b16", "b32", "l16", "r50_l32"):
        slug = variant.replace("_", "-")
        yield _image(
            f"vit_{variant}",
            tfhub=f"sayakpaul/vit_{variant}_fe/1",
            # The same owner has another name on Kaggle.
            kaggle=f"spsayakpaul/vision-transformer/tensorFlow2/vit-{slug}-fe/1",
            pixels="symmetric",
            note=_FIXED_SIZE,
        )


def _imagenet(name: str, slug: str, *, tfhub: str = "", **facts) -> Card:
    tfhub = tfhub or f"{name}/feature_vector/5"
    tfhub = f"google/imagenet/{tfhub}"
    return _image(name, tfhub=tfhub, kaggle=f"google/{slug}", **facts)


def _image(name: str, *, size: int = 224, pixels: str = "unit", **facts) -> Card:
    facts |= {"image_size": size, "pixels": pixels, "licence": "Apache-2.0"}
    return Card(name=name, kind="image", **facts)
