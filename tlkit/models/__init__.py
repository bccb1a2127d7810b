"""An encoder becomes a Keras model with a head."""

from .builders import build_model as build_model
from .builders import image_classifier as image_classifier
from .builders import text_classifier as text_classifier
from .heads import Head as Head
from .heads import Pixels as Pixels
from .heads import TokenPooling as TokenPooling
from .model_prefix import FEATURES as FEATURES
from .model_prefix import can_cut as can_cut
from .model_prefix import encoder_to_cut as encoder_to_cut
from .model_prefix import head_of as head_of
from .model_prefix import lower_half as lower_half
from .model_prefix import lower_weights as lower_weights
from .model_prefix import split as split
from .model_prefix import task_of as task_of
from .model_prefix import upper_half as upper_half
from .preprocessors import ImagePreprocessor as ImagePreprocessor
from .preprocessors import preprocessing as preprocessing
