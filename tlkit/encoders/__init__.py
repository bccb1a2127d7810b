"""A folder becomes a trainable Keras layer with blocks."""

from .block_map import write_block_map as write_block_map
from .costs import section_costs as section_costs
from .encoder import Block as Block
from .encoder import Encoder as Encoder
from .encoder_facts import EncoderFacts as EncoderFacts
from .encoder_prefix import all_inputs as all_inputs
from .encoder_prefix import can_divide as can_divide
from .encoder_prefix import cut_name as cut_name
from .encoder_prefix import cut_state as cut_state
from .encoder_prefix import needed_inputs as needed_inputs
from .freezing import choose_blocks as choose_blocks
from .freezing import find_encoder as find_encoder
from .freezing import freeze as freeze
from .freezing import nested_layers as nested_layers
from .inspection import Inspection as Inspection
from .inspection import inspect as inspect
from .loading import load_encoder as load_encoder
from .reusable_saved_model import make_reusable as make_reusable
from .saved_model.trust import is_trusted as is_trusted
from .saved_model.trust import trust_source as trust_source
from .saved_model.trust import trusts_keras_file as trusts_keras_file
from .tapping import tap as tap
from .xla_report import lowered as lowered
from .xla_report import why_not_compiled as why_not_compiled
