"""Writes the files of this folder, which later versions of tlkit must still read.

They were written by tlkit 0.1.0 (commit e0483dc) on TensorFlow 2.21 and Keras 3.15:

    python -m tests.compatibility.write
"""

import json
import pathlib
import shutil

import keras
import numpy as np

import tlkit
from tests.tiny import write_image_encoder, write_text_encoder

HERE = pathlib.Path(__file__).parent
IMAGES = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3)).astype("uint8")
CLASSES = np.arange(12) % 3
PAIRS = [("good film", "bad"), ("the film", "good !"), ("bad bad films the", "good")]
TEXTS = ["good film", "the bad films ! good good good", "bad"]
LABELS = ["a", "b", "c"]


def schedule():
    """Returns two phases; SGD's steps do not depend on how updates are counted."""
    options = {"learning_rate": 0.05, "decay": "constant"}
    return [
        tlkit.Phase("head", epochs=2, **options),
        tlkit.Phase(1, epochs=2, **options),
    ]


def train(model, directory, **options):
    """Trains an image model, which stops in phase 2 if a callback says so."""
    return tlkit.fit(
        model,
        IMAGES,
        CLASSES,
        schedule=schedule(),
        optimizer=keras.optimizers.SGD(momentum=0.9),
        batch_size=4,
        directory=directory,
        verbose=0,
        **options,
    )


class Interrupt(keras.callbacks.Callback):
    """Stops a run as Ctrl-C does, before its last epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


def scores_of(model, examples):
    """Returns `[examples][labels]` scores in the order of the labels."""
    found = tlkit.predict(model, examples)
    return [[prediction.scores[label] for label in LABELS] for prediction in found]


def main():
    work = HERE / "work"
    image_encoder = write_image_encoder(work / "images" / "1", size=8)
    text_encoder = write_text_encoder(work / "texts" / "1")

    keras.utils.set_random_seed(1)
    image_model = tlkit.image_classifier(image_encoder, LABELS, image_size=8)
    image_model.save(HERE / "image.keras")
    try:
        checkpoints = tlkit.Checkpoints(steps=3)
        options = {"callbacks": [Interrupt()], "checkpoints": checkpoints}
        train(image_model, HERE / "run", **options)
    except KeyboardInterrupt:
        pass
    model = keras.saving.load_model(HERE / "image.keras")
    train(model, None)
    np.savez(HERE / "trained.npz", *model.get_weights())

    text_model = tlkit.text_classifier(
        text_encoder, LABELS, length=8, truncation="tail", windows=2, overlap=2
    )
    text_model.save(HERE / "text.keras")
    pair_model = tlkit.text_classifier(text_encoder, LABELS, length=10, pairs=True)
    pair_model.save(HERE / "pair.keras")
    tlkit.export(text_model, HERE / "export", examples=TEXTS)
    image_model = keras.saving.load_model(HERE / "image.keras")
    scores = {
        "image": scores_of(image_model, IMAGES),
        "text": scores_of(text_model, TEXTS),
        "pair": scores_of(pair_model, PAIRS),
    }
    (HERE / "scores.json").write_text(json.dumps(scores))
    splits = tlkit.data.arrays(IMAGES, CLASSES, labels=LABELS, validation=3, test=3)
    tlkit.data.write_shards(splits, HERE / "shards", verbose=0)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
