"""augmentation: to be described."""

from .example_seeds import batch_seed as batch_seed
from .example_seeds import example_seed as example_seed
from .example_seeds import view_number as view_number
