"""examples: to be described."""

from .batches import buffer_size as buffer_size
from .example_order import order as order
from .random_access import access_of as access_of
from .random_access import attach_access as attach_access
from .random_access import map_with_access as map_with_access
from .random_access import pick as pick
from .splits import Skipped as Skipped
from .tf_data import parallel_map as parallel_map
from .tf_data import untuned as untuned
