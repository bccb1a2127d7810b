"""Models: an encoder and a task become a Keras model.

An encoder (or its source) and a task or labels come in; a Functional `keras.Model` goes
out. In the order of the data:

- `builders`: `image_classifier`, `text_classifier` and `build_model` assemble the
  layers: inputs, encoder, pooling and head.
- `preprocessors`: `preprocessing(model)` turns raw examples into the model's inputs;
  `text` does so for texts, with truncation, windows and padding.
- `heads`: the layers around the encoder: `Pixels`, `TokenPooling` and `Head`.
- `model_options`: reads a model's options, such as the length of its texts, from the
  layers that store them. An encoder never stores options of a model.
- `model_prefix`: divides a model at a cut, so that the prefix can be cached.

The *features* are the input of the head. A *cut* is a point that only one tensor
passes; the *prefix* is the model before a cut, the *remainder* the model after it. To
add a kind of model, write a builder; its layers must store its options, so that they
are saved.
"""

from .builders import build_model as build_model
from .builders import image_classifier as image_classifier
from .builders import text_classifier as text_classifier
from .heads import Head as Head
from .heads import Pixels as Pixels
from .heads import TokenPooling as TokenPooling
from .model_options import facts_of as facts_of
from .model_options import packing_of as packing_of
from .model_prefix import FEATURES as FEATURES
from .model_prefix import can_cut as can_cut
from .model_prefix import encoder_to_cut as encoder_to_cut
from .model_prefix import head_of as head_of
from .model_prefix import prefix_function as prefix_function
from .model_prefix import prefix_weights as prefix_weights
from .model_prefix import remainder_of as remainder_of
from .model_prefix import split as split
from .model_prefix import task_of as task_of
from .preprocessors import ImagePreprocessor as ImagePreprocessor
from .preprocessors import preprocessing as preprocessing
