"""An encoder becomes a Keras model with a head."""

from . import tasks as tasks
from .anatomy import split as split
from .anatomy import task_of as task_of
from .building import build_model as build_model
from .building import image_classifier as image_classifier
from .building import text_classifier as text_classifier
from .layers import Head as Head
from .layers import Pixels as Pixels
from .layers import TokenPooling as TokenPooling
from .preprocessing import preprocessing as preprocessing
