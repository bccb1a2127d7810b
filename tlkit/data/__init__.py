"""Files become batches."""

from .augmentation.augmentation import Augmentation as Augmentation
from .augmentation.color import Color as Color
from .examples.batches import batches as batches
from .examples.class_sampling import balanced as balanced
from .examples.class_sampling import class_counts as class_counts
from .examples.class_sampling import class_weights as class_weights
from .examples.class_sampling import take_per_class as take_per_class
from .examples.mixtures import mixture as mixture
from .examples.splits import Skipped as Skipped
from .examples.splits import SkippedWarning as SkippedWarning
from .examples.splits import Splits as Splits
from .examples.splits import stratified_split as stratified_split
from .loaders.arrays import arrays as arrays
from .loaders.image_folder import image_folder as image_folder
from .loaders.texts import text_csv as text_csv
from .loaders.texts import text_folder as text_folder
from .loaders.tfds import tfds as tfds
from .loaders.tfrecord_files import tfrecord_files as tfrecord_files
from .shards.shard_reader import tfrecords as tfrecords
from .shards.shard_writer import write_shards as write_shards
