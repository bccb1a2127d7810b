"""Files become batches."""

from .arrays import arrays as arrays
from .batches import batches as batches
from .pictures import image_folder as image_folder
from .splits import Skipped as Skipped
from .splits import SkippedWarning as SkippedWarning
from .splits import Splits as Splits
from .splitting import stratified_split as stratified_split
from .texts import text_csv as text_csv
from .texts import text_folder as text_folder
