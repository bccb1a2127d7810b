"""Seeds of a model's second and later `fit`, which continue with other random numbers.

Keras's seed generators continue from one `fit` to the next. Here the seed of a `fit`
depends on the number of calls before, so that `for _ in range(5): fit(epochs=1)` does
not repeat the order of the examples, the augmentation and the dropout masks.
The count belongs to the model object: a new process, or a model that was loaded, begins
with 0. A resumed run has the count of its checkpoint.

Tested in tests/training/test_repeated_fits.py.
"""

import weakref

import keras
import numpy as np

# Weak keys: a count lives as long as its model.
_COUNTS: weakref.WeakKeyDictionary[keras.Model, int] = weakref.WeakKeyDictionary()


def fit_count(model: keras.Model) -> int:
    """Returns how many times a model object has begun to train in this process."""
    return _COUNTS.get(model, 0)


def set_fit_count(model: keras.Model, count: int) -> None:
    """Sets how many times a model has begun to train."""
    _COUNTS[model] = count


def seed_of_fit(seed: int, count: int) -> int:
    """Returns the seed for a call of `fit`; for the first call, the user's seed.

    Args:
        seed: The user's seed.
        count: The number of times that the model was trained before.

    Returns:
        An integer of 0 to 2**31 - 1 for a `count` above 0.
    """
    if count == 0:
        return seed
    numbers = np.random.SeedSequence([seed % 2**63, count])
    return int(numbers.generate_state(1)[0]) >> 1
