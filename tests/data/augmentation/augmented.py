"""Pictures, and what augmentations make of them."""

import numpy as np
import tensorflow as tf

from tlkit.data import Augmentation
from tlkit.data.augmentation.example_seeds import example_seed


def only(**options):
    return Augmentation(**({"crop": None, "flip": None} | options))


def picture(number=0, height=20, width=24):
    random = np.random.default_rng(number)
    return random.integers(0, 256, (height, width, 3)).astype(np.float32)


def views(augmentation, pixels, count):
    """What becomes of one picture in that many epochs, by one traced function."""

    @tf.function(input_signature=[tf.TensorSpec((), tf.int64)])
    def one(epoch):
        return augmentation.example(tf.constant(pixels), example_seed(0, epoch, 0))

    return [one(tf.constant(epoch, tf.int64)).numpy() for epoch in range(count)]
