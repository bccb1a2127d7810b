"""Decodes images: a string with an encoded image becomes pixels of one size.

* `decoder`: `decode` detects the format of an image, decodes, crops and resizes it;
  `check` tests whether `decode` can decode it.
* `jpeg`: decodes a JPEG at a fraction of its size, or only a window; applies EXIF.
* `other_formats`: decodes GIF, BMP and WebP, after checks that TensorFlow's op lacks.
* `resampling`: crops and resizes pixels.
* `limits`: the largest image, and errors raised inside a graph.

All of this runs as TensorFlow ops, so that training, prediction and an export have the
same pixels. In `tf.data` pipelines, the ops for GIF, BMP and WebP run in a Python call
(`rare_formats_in_python`).

A *window* is a rectangle in an image: float32 `(y, x, height, width)`, as fractions of
the image's height and width.
"""

from .decoder import decode as decode
from .decoder import decode_where_possible as decode_where_possible
from .resampling import crop as crop
from .resampling import resize as resize
