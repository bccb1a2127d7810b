"""Loaders: each returns `Splits` of one kind of source.

* `image_folder`: images in class folders; `class_folders` lists the files;
* `texts`: a CSV file (`csv_columns`), or text files in class folders;
* `arrays`: arrays and texts in memory;
* `tfds`: TensorFlow Datasets, as streams;
* `tfrecord_files`: TFRecord files of any origin.

A loader checks its arguments, then every example (`tfds` does not), and lists examples
that it left out in `splits.skipped`. All loaders but `tfds` and `tfrecord_files` end by
calling `examples/split_assembly`.
"""
