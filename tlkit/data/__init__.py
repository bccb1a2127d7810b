"""Files become batches."""

from .arrays import arrays as arrays
from .augmentation import Augmentation as Augmentation
from .batches import batches as batches
from .color import Color as Color
from .mixing import mixture as mixture
from .pictures import image_folder as image_folder
from .sampling import balanced as balanced
from .sampling import class_counts as class_counts
from .sampling import class_weights as class_weights
from .sampling import take_per_class as take_per_class
from .shards import write_shards as write_shards
from .splits import Skipped as Skipped
from .splits import SkippedWarning as SkippedWarning
from .splits import Splits as Splits
from .splitting import stratified_split as stratified_split
from .texts import text_csv as text_csv
from .texts import text_folder as text_folder
from .tfds import tfds as tfds
from .tfrecord_files import tfrecord_files as tfrecord_files
from .tfrecords import tfrecords as tfrecords
