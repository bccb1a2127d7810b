"""Feeds: the batches of an epoch, from any input of `fit`.

In: `Splits`, arrays, texts, or batches from a `tf.data.Dataset` or a Python object.
Out: a `Feed` (`feed`), whose method `batches` returns the batches of an epoch. In the
order in which data passes:

* `fit_inputs`: `make_feed`, which chooses the feed for an input; `input_arrays`: nests
  of arrays and tables of one length;
* `splits_feed`: single examples, preprocessed in every epoch, by index or as a stream;
  `token_rows`: texts, tokenized once;
  `rows_feed`: rows with random access (`array_rows`), such as cached activations;
  `dataset_feed`: the batches of a user's dataset; `python_batches`: those of a
  generator, a `PyDataset` or a data loader;
* wrappers, in this order: `augmented_feed`, `epoch_steps` (`steps_per_epoch`),
  `label_check`, `class_weighted_feed`, `blended_feed` (MixUp, CutMix); for the cache
  `stacked_views` (several augmented views);
* `data_errors`: raises errors of the data without TensorFlow's text around them;
* `replica_batches`: `hand_out`, which splits the batches over replicas and pads them.

Words: *rows* are examples that can be read by index. `present` is 1 for an example and
0 for padding. A *worker part* is the part of each batch that one of several workers
reads.
"""
