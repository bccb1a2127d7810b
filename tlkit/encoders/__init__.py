"""A folder becomes a trainable Keras layer with blocks."""

from .encoder import Block as Block
from .encoder import Encoder as Encoder
from .freezing import choose_blocks as choose_blocks
from .freezing import find_encoder as find_encoder
from .freezing import freeze as freeze
from .inspection import Inspection as Inspection
from .inspection import inspect as inspect
from .loading import load_encoder as load_encoder
from .saved_model.trust import is_trusted as is_trusted
from .saved_model.trust import trust_source as trust_source
from .tapping import tap as tap
from .xla_report import lowered as lowered
from .xla_report import why_not_compiled as why_not_compiled
