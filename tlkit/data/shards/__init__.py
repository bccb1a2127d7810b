"""Shards: splits in a few large TFRecord files.

* `shard_writer`: `write_shards` writes splits and an index, `shards.json`;
  `records`: converts an example to a record, and back;
* `shard_reader`: `tfrecords` reads the index, checks the files, and returns splits;
* `shard_access`: reads examples of TFRecord files, in order or by index, also those of
  files that others wrote (`loaders/tfrecord_files`).
"""
