"""What it costs to load JPEGs at a model's size, against the peers.

    python -m tests.benchmarks.pictures [--pictures 2000] [--repeats 3]
        [--without torch]

JPEGs of 1,600 by 1,200 pixels, some 300 KB each, that this script writes beside the
cache of samples, to batches of 32 at 224 by 224. Variants, each in a process of its own
and timed from the folder to the last batch:

* `tlkit`: `image_folder(verify=False)` and `batches`, as `tlkit.fit` does;
* `keras`: `keras.utils.image_dataset_from_directory`;
* `torch`: a DataLoader with two workers; Pillow decodes in `draft` mode and resizes. In
  an environment that this script makes.

The bars: `tlkit` at least 2.5 times as fast as `keras` and not behind `torch`, and its
peak memory with all pictures no more than 100 MB above that with a tenth of them.

Learnt: of such a JPEG, reading the entropy-coded data alone takes 3.7 to 4.3 ms of one
core (decoding at an eighth), at a quarter 4.1 to 5.0, and decoding it whole 5.7 to 6.9,
so the first bar is out of reach of anything that decodes. Resizing with antialiasing
takes 0.7 to 1.5 ms more (`ScaleAndTranslate`, rows and columns apart, with a row for a
pixel; 1.7 to 2.4 in one call, which works in vectors of three), the EXIF orientation
0.05, the batch of floats 0.15. Four calls and two threads of its own for each core keep
the cores busy (5.9 ms of them for a picture); with as many as cores it took a sixth to
a fourth longer.
Each epoch begins with TensorFlow optimizing the decoder's ops anew, nine tenths of it
in grappler, which grows with them: 0.3 s with 945, more than half of them for what is
no JPEG, 0.15 with 253; and the process's first with 0.4 or 0.1 s of tracing them.
Without grappler (a function that is not inlined, or is for one device) the first
picture comes still later: oneDNN's rewriting of the graph then sees what grappler would
have cut. AutoGraph took a tenth of a second to find nothing to convert.
`fancy_upscaling=False` gives the same bytes at a quarter, in the same time.
`keras` ends some epochs after 10.2 seconds whatever it has to do: see `epoch_ends`.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import time

import numpy as np

from tests.benchmarks.environments import cache, environment
from tests.benchmarks.timing import median, peak_memory_mb, run_variants

PEERS = ("keras", "torch")
NEEDS = ("torch==2.13.0", "pillow>=10", "numpy", "platformdirs>=4")
PIXELS, BATCH = 224, 32
WIDTH, HEIGHT = 1600, 1200


def _folder(count: int) -> pathlib.Path:
    return cache() / f"pictures-{count}"


def _backgrounds(random: np.random.Generator) -> list[np.ndarray]:
    """Pictures with blobs and texture, `[1200, 1600, 3]`."""
    from PIL import Image

    made = []
    for _ in range(16):
        layers = np.zeros((HEIGHT, WIDTH, 3), np.float32)
        for cells, strength in ((4, 0.6), (30, 0.3), (300, 0.1)):
            shape = (cells * 3 // 4, cells, 3)
            noise = Image.fromarray(random.integers(0, 256, shape).astype(np.uint8))
            layers += strength * np.asarray(noise.resize((WIDTH, HEIGHT)), np.float32)
        made.append(layers.astype(np.int16))
    return made


def _write_pictures(count: int) -> None:
    """Writes `<class>/<number>.jpg`, each with a shift and grain of its own."""
    from PIL import Image

    folder = _folder(count)
    if (folder / "ready").exists():
        return
    random = np.random.default_rng(0)
    backgrounds = _backgrounds(random)
    grain = random.normal(0, 4, (HEIGHT * 2, WIDTH * 2, 1)).round().astype(np.int16)
    for number in range(count):
        y, x = random.integers(0, HEIGHT), random.integers(0, WIDTH)
        pixels = np.roll(backgrounds[number % len(backgrounds)], (y, x), (0, 1))
        pixels += grain[y : y + HEIGHT, x : x + WIDTH]
        path = folder / f"class{number % 2}" / f"{number:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=85)
    (folder / "ready").touch()


def _time_tlkit(folder: pathlib.Path) -> int:
    import tlkit
    from tlkit.models.preprocessors import ImagePreprocessor

    splits = tlkit.data.image_folder(
        folder, validation=0, test=0, verify=False, verbose=0
    )
    preprocess = ImagePreprocessor(PIXELS, PIXELS)
    found = tlkit.data.batches(splits.train, preprocess, batch_size=BATCH, shuffle=True)
    return sum(len(labels) for _, labels in found)


def _time_keras(folder: pathlib.Path) -> int:
    import keras

    found = keras.utils.image_dataset_from_directory(
        folder, image_size=(PIXELS, PIXELS), batch_size=BATCH, seed=0, verbose=False
    )
    return sum(len(labels) for _, labels in found)


class _Pictures:
    """What a DataLoader takes."""

    def __init__(self, folder: pathlib.Path):
        self.paths = sorted(folder.glob("*/*.jpg"))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            image.draft("RGB", (PIXELS, PIXELS))
            image = image.convert("RGB").resize((PIXELS, PIXELS), Image.BILINEAR)
        return np.array(image), index % 2


def _time_torch(folder: pathlib.Path) -> int:
    import torch

    loader = torch.utils.data.DataLoader(
        _Pictures(folder), batch_size=BATCH, num_workers=2, shuffle=True
    )
    # Floats are made here: from process to process go the bytes, a fourth as much.
    return sum(len(images.float()) for images, _ in loader)


def _time(variant: str) -> dict[str, float]:
    peer, count = variant.split("-")
    timed = {"tlkit": _time_tlkit, "keras": _time_keras, "torch": _time_torch}
    # What is imported first, so that only loading is timed.
    __import__(peer)
    begin = time.perf_counter()
    loaded = timed[peer](_folder(int(count)))
    seconds = time.perf_counter() - begin
    assert loaded == int(count), (loaded, count)
    return {
        "seconds": round(seconds, 2),
        "pictures_per_second": round(loaded / seconds, 1),
        "peak_memory_mb": round(peak_memory_mb()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--without", default="", help="peers to leave out")
    parser.add_argument("--variant", help="run one, as name-count, and print JSON")
    options = parser.parse_args()
    if options.variant:
        print(json.dumps(_time(options.variant)))
        return
    count, few = options.pictures, max(BATCH, options.pictures // 10)
    for number in (count, few):
        _write_pictures(number)
    peers = [name for name in PEERS if name not in options.without.split(",")]
    names = [f"tlkit-{few}", *(f"{name}-{count}" for name in ("tlkit", *peers))]
    pythons = {}
    if "torch" in peers:
        pythons = {f"torch-{count}": environment("torch-pictures", NEEDS)}
    runs = run_variants(__spec__.name, names, repeats=options.repeats, pythons=pythons)
    _report(runs, count, few, peers)


def _report(runs: dict[str, list[dict]], count: int, few: int, peers: list[str]):
    ours = median(runs[f"tlkit-{count}"], "seconds")
    print(f"tlkit {count / ours:.0f} pictures a second")
    for peer, bar in (("keras", 2.5), ("torch", 1.0)):
        if peer in peers:
            theirs = median(runs[f"{peer}-{count}"], "seconds")
            print(
                f"{peer} {count / theirs:.0f} a second: tlkit is {theirs / ours:.2f} "
                f"times as fast (at least {bar})"
            )
    peaks = [median(runs[f"tlkit-{n}"], "peak_memory_mb") for n in (few, count)]
    print(
        f"peak memory of tlkit: {peaks[0]:.0f} MB with {few:,} pictures, "
        f"{peaks[1]:.0f} MB with {count:,} (at most 100 MB more)"
    )


if __name__ == "__main__":
    main()
