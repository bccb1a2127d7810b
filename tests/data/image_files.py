"""Small pictures to write into folders, and as cameras and programs write them."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(kind: str = "JPEG", *, seed: int = 0, size: tuple[int, int] = (9, 7)):
    """The bytes of a picture of noise, `size` being (width, height)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), kind)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    """The bytes of a picture of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def scene(width: int, height: int, *, seed: int = 0) -> Image.Image:
    """A picture with areas, edges and texture, as a photograph has them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(width, height)
    channels = []
    for _ in range(3):
        a, b, c, d = rng.uniform(0.5, 3, 4)
        wave = np.sin(6 * a * x + 3 * b * y) + np.cos(4 * c * y - 5 * d * x)
        channels.append(110 + 45 * wave)
    pixels = np.stack(channels, -1)
    for _ in range(12):
        center, radius = rng.uniform(0, 1, 2), rng.uniform(0.02, 0.2)
        disc = (y - center[0]) ** 2 + (x - center[1]) ** 2 < radius**2
        pixels[disc] = rng.uniform(0, 255, 3)
    pixels += rng.normal(0, 4, (height, width, 1))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def exif(
    orientation: int, *, order: str = "<", kind: int = 3, before: int = 1
) -> bytes:
    """EXIF with other entries before the orientation; `order` is struct's."""
    entries = [(0x010F + number, 3, 1, 7) for number in range(before)]
    entries.append((0x0112, kind, 1, orientation))
    start = b"II*\0" if order == "<" else b"MM\0*"
    data = start + struct.pack(order + "IH", 8, len(entries))
    for tag, type_, count, value in entries:
        data += struct.pack(order + "HHIHH", tag, type_, count, value, 0)
    return b"Exif\0\0" + data + b"\0\0\0\0"


def with_exif(jpeg: bytes, data: bytes) -> bytes:
    """A JPEG with a segment of EXIF right at its beginning."""
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data + jpeg[2:]


def enormous_png(width: int, height: int) -> bytes:
    """A PNG that says it is large, with hardly any data."""
    small = bytearray(saved(Image.new("RGB", (8, 8)), "PNG"))
    struct.pack_into(">II", small, 16, width, height)
    struct.pack_into(">I", small, 29, zlib.crc32(small[12:29]))
    return bytes(small)


def gif_of(frames, data=b"\2\x44\1\0", *, shared=None, own=None) -> bytes:
    """A GIF of a small screen and frames of these sizes.

    Args:
        frames: Widths and heights.
        data: The blocks of every frame; those of one pixel.
        shared: How many doublings of two colors the palette of all has; `None` for no
            palette.
        own: Likewise of each frame's.
    """
    flags = lambda doublings: 0 if doublings is None else 0x80 + doublings
    colors = lambda doublings: (
        b"" if doublings is None else b",!;" * 2 ** (doublings + 1)
    )
    raw = b"GIF89a" + struct.pack("<HHBBB", 40, 24, flags(shared), 0, 0)
    raw += colors(shared)
    for width, height in frames:
        raw += b"\x21\xf9\4\0\0\0\0\0\x21\xfe\5,hey!\0"
        raw += b"," + struct.pack("<HHHHB", 0, 0, width, height, flags(own))
        raw += colors(own) + b"\2" + data
    return raw + b"\x3b"


def enormous_jpeg(side: int) -> bytes:
    """A real gray JPEG of one shade; `side` must be a multiple of 32."""
    small = bytearray(saved(Image.new("L", (16, 16), 128), "JPEG"))
    frame = small.index(b"\xff\xc0")
    struct.pack_into(">HH", small, frame + 5, side, side)
    scan = small.index(b"\xff\xda")
    begin = scan + 2 + struct.unpack_from(">H", small, scan + 2)[0]
    # Six bits for each block of 8 by 8: no change of shade (00), nothing else (1010).
    return bytes(small[:begin]) + b"\x28\xa2\x8a" * (side * side // 256) + b"\xff\xd9"


def write_classes(directory: Path, counts: dict[str, int]) -> dict[str, bytes]:
    """Writes `directory/<class>/<number>.jpg`; the bytes by their paths."""
    written = {}
    for offset, (name, count) in enumerate(counts.items()):
        (directory / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            path = directory / name / f"{number:03}.jpg"
            path.write_bytes(encoded(seed=1000 * offset + number))
            written[str(path)] = path.read_bytes()
    return written


def flipped(contents: bytes, position: int) -> bytes:
    changed = bytearray(contents)
    changed[position] ^= 0xFF
    return bytes(changed)
