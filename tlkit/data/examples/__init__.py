"""Examples: raw values with labels, from the splits of a loader to batches.

A loader hands its examples to `split_assembly`; `batches` returns the batches of an
epoch. In the order in which data passes:

* `splits`: `Splits`, and the division of examples into them;
* `split_assembly`: makes `Splits` of the examples of a loader;
* `random_access`: `Examples`, which are read by index; the splits are views of them.
  `raw_values`: converts a raw value to one string, and back;
* `class_sampling`: fewer, repeated or weighted examples of a class;
  `mixtures`: several data sets as one;
* `example_order`: the order of an epoch; `batches`: its batches;
* `tf_data`: makes pipelines run in parallel and in order, without the autotuner.

A view has random access. Any other dataset is a stream, shuffled within a buffer.
"""

from .batches import buffer_size as buffer_size
from .example_order import mixed_seed as mixed_seed
from .example_order import order as order
from .random_access import Examples as Examples
from .random_access import examples_of as examples_of
from .random_access import is_repeatable as is_repeatable
from .random_access import map_examples as map_examples
from .random_access import pick as pick
from .random_access import take_examples as take_examples
from .splits import Skipped as Skipped
from .splits import is_integer as is_integer
from .tf_data import parallel_map as parallel_map
from .tf_data import untuned as untuned
