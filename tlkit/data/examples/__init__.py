"""examples: to be described."""

from .batches import buffer_size as buffer_size
from .example_order import order as order
from .random_access import Examples as Examples
from .random_access import examples_of as examples_of
from .random_access import is_repeatable as is_repeatable
from .random_access import map_examples as map_examples
from .random_access import pick as pick
from .splits import Skipped as Skipped
from .tf_data import parallel_map as parallel_map
from .tf_data import untuned as untuned
