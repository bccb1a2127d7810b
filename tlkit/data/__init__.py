"""Data: files, arrays and texts become splits of examples, and these become batches.

A source comes in: a folder, a CSV file, arrays, TensorFlow Datasets, TFRecord files.
`Splits(train, validation, test, labels)` comes out, with plain `tf.data.Dataset`s. For
each epoch, `batches` makes batches of a split. In the order in which data passes:

* `loaders/`: one module for each source; `shards/`: splits in a few large files;
* `examples/`: `Splits`, random access, class balance, mixtures, the order of an epoch,
  and batches;
* `images/`: decodes and resizes images, with the same ops in a data set and an export;
* `augmentation/`: random changes of images: geometry, color, MixUp and others.

An example is a pair of a raw value and a label. A raw value is an encoded image, a text
or an array; the model's preprocessing (`tlkit.models`) turns it into inputs. A split
has random access if its examples can be read by index; any other dataset is a stream.
The same seed gives the same splits, order and augmentation on every machine. Feeds
(`training/feeds`) hand the batches to the loop.

To add a source, write a loader that ends in `examples.split_assembly.assemble`.
"""

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
