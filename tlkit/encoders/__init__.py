"""Encoders: pretrained networks as Keras layers with blocks.

Comes in: a source, which `sources` resolves to a folder with a SavedModel, or a Keras
model. Goes out: an `Encoder`, a Keras layer whose blocks can be frozen one by one. In
the order of the data:

- `loading`: `load_encoder` creates one of three kinds of encoder from a source. It uses
  `saved_model` to read a SavedModel, `graph` to flatten its functions, and `network` to
  cut the flat graphs into sections.
- `encoder`: the base class `Encoder` and `Block`. `opened_encoder` runs SavedModels
  that were split into blocks, `restored_encoder` those that cannot be split, and
  `native_encoder` Keras models.
- `encoder_facts`: the facts that a source states. `input_check` checks inputs.
- `freezing`: `freeze` selects the trainable blocks. `tapping`: `tap` builds a model
  that returns the outputs of blocks.
- `encoder_prefix`: divides an encoder at a cut. `costs`: the work of each section.
  `inference`: a faster forward pass for frozen encoders.
- `inspection`: `inspect` reports what an encoder is. `xla_report` explains why XLA
  cannot compile a function.
- `reusable_saved_model`: turns an encoder back into a SavedModel. `block_map` stores
  the names of the blocks in it, and `loading` reads them again.

A *cut* is a point in the graph where a single tensor passes. A *section* is the part of
the graph between two cuts, a *block* is one or more sections with one name, and its
*parts* are these sections. To add a kind of source, start in `loading`. To compute a
weight instead of reading it, start in `OpenedEncoder._value`, which returns the value
of each weight to `network` and `inference`.
"""

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
from .xla_report import why_not_compiled as why_not_compiled
