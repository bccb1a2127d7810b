"""Decodes images: a string with an encoded image becomes pixels of one size.

* `decoder`: detects the format, decodes (PNG itself), crops and resizes: `decode`,
  `check`.
* `jpeg`: decodes a JPEG at a fraction of its size, or only a part; reads EXIF.
* `other_formats`: GIF, BMP and WebP, and the checks that make TensorFlow's op safe.
* `resampling`: crops and resizes pixels.
* `limits`: the largest image, and errors raised inside a graph.

All of this runs as TensorFlow ops, so that training, prediction and an export have the
same pixels. In `tf.data` pipelines a Python call decodes GIF, BMP and WebP
(`rare_formats_in_python`).

A *window* is a part of an image: float32 `(y, x, height, width)` as fractions of it.
"""

from .decoder import decode as decode
from .decoder import decode_where_possible as decode_where_possible
from .resampling import crop as crop
from .resampling import resize as resize
