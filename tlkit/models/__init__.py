"""An encoder becomes a Keras model with a head."""

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
