"""saved_model: to be described."""

from .saved_model_reader import outside_strategy as outside_strategy
from .saved_model_reader import read_saved_model as read_saved_model
