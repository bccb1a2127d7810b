"""Changes training images at random, so that a model sees each one in many forms.

Float32 images in 0…255 come in, one by one and then as a batch; images of the same
shape go out. `data` exports the public `Augmentation` and `Color`.

* `augmentation`: `Augmentation`, the settings, and the order of the operations.
* `example_seeds`: seeds from the run's seed, the epoch and the example's index, so that
  the changes do not depend on the order of batches, or on where a run was resumed.
* `geometry`: moves pixels: crops, flips, erasing, projections.
* `rand_augment`: RandAugment, which draws operations of `color` and `geometry`.
* `color`: changes the values of pixels: brightness, contrast, saturation and hue.
* `mixup`: MixUp and CutMix, which blend the examples of a batch and their labels.

A *window* is `(top, left, height, width)` as fractions of the image. A *view* is one of
a few augmented forms of an example whose activations are cached.
"""

from .example_seeds import batch_seed as batch_seed
from .example_seeds import example_seed as example_seed
from .example_seeds import view_number as view_number
