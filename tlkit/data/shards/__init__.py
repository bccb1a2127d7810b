"""Shards: splits in a few large TFRecord files.

* `shard_writer`: `write_shards` writes splits and an index, `shards.json`;
  `records`: one example as a record;
* `shard_reader`: `tfrecords` reads the index, checks the files, and returns splits;
* `shard_access`: the examples in TFRecord files, in order or by index. It is used for
  files of other origin, too (`loaders/tfrecord_files`).
"""
