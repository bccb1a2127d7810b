"""store: to be described."""

from .archives import UnsafeArchive as UnsafeArchive
from .archives import place_inside as place_inside
from .saved_model_check import check_saved_model as check_saved_model
from .saved_model_check import is_saved_model as is_saved_model
from .saved_model_check import parse_saved_model as parse_saved_model
