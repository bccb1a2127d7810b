"""tlkit fine-tunes any published TensorFlow encoder in Keras 3, block by block."""

from .encoders import Block as Block
from .encoders import Encoder as Encoder
from .encoders import freeze as freeze
from .encoders import load_encoder as load_encoder

__version__ = "0.1.0"
