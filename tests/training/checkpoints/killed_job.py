"""A job that tests kill: `python killed_job.py ENCODER DIRECTORY EPOCHS [STRATEGY]`.

It goes on from its last checkpoint, and leaves its weights in `DIRECTORY/weights.npz`.
"""

import sys
import warnings

import keras
import numpy as np

import tlkit
from tlkit.training.checkpoints.checkpoint_files import CheckpointWarning


def main(encoder: str, directory: str, epochs: str, strategy: str | None = None):
    """Trains on forty pictures, with dropout, averages and a step of two batches."""
    length = int(epochs)
    place = None if strategy is None else tlkit.strategy(strategy)
    random = np.random.default_rng(0)
    x = random.uniform(0, 255, (40, 8, 8, 3)).astype("uint8")
    model = tlkit.image_classifier(encoder, ["a", "b"], image_size=8, dropout=0.2)
    # A checkpoint that was killed while it was written is passed over in silence; one
    # that is damaged is not, and must not be there.
    warnings.simplefilter("error", CheckpointWarning)
    tlkit.fit(
        model,
        x,
        np.arange(40) % 2,
        validation_data=(x[:8], np.arange(8) % 2),
        schedule=[
            tlkit.Phase("head", epochs=length),
            tlkit.Phase(1, epochs=length, learning_rate=1e-2, layer_decay=0.5),
            tlkit.Phase("all", epochs=length, batch_norm="train"),
        ],
        callbacks=[keras.callbacks.ReduceLROnPlateau(patience=5)],
        batch_size=6,
        gradient_accumulation_steps=2,
        ema=0.99,
        strategy=place,
        directory=directory,
        resume=True,
        checkpoints=tlkit.Checkpoints(steps=1),
        verbose=0,
    )
    if place is None or tlkit.training.strategies.workers.is_chief(place):
        np.savez(f"{directory}/weights.npz", *model.get_weights())


if __name__ == "__main__":
    main(*sys.argv[1:])
