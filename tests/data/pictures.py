"""Small pictures to write into folders."""

import io
from pathlib import Path

import numpy as np
from PIL import Image


def encoded(kind: str = "JPEG", *, seed: int = 0, size: tuple[int, int] = (9, 7)):
    """The bytes of a picture of noise, `size` being (width, height)."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


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
