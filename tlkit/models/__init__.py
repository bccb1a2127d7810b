"""An encoder becomes a Keras model with a head."""

from .builders import build_model as build_model
from .builders import image_classifier as image_classifier
from .builders import text_classifier as text_classifier
from .heads import Head as Head
from .heads import Pixels as Pixels
from .heads import TokenPooling as TokenPooling
from .model_prefix import split as split
from .model_prefix import task_of as task_of
from .preprocessors import preprocessing as preprocessing
