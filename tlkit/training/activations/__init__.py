"""Cached activations: the output of frozen blocks is computed once, not in each epoch.

In: a run, its plan and the feeds of the examples. Out, for each phase: the part of the
model to train, and feeds of the cached activations that this part takes as input.

`plan_cache` of `plans/cache_plan.py` decides at which cut, whether in memory or on
disk, and in which dtype activations are cached; `fit` passes its plan to
`CachedActivations`. The files here, in the order of the data:

- `cached_activations`: for each phase, reuses or computes the activations
- `frozen_pass`: runs the prefix of the model over all examples, verifies the result
- `cached_rows`: the activations as arrays with random access
- `cache_folder`: finds and publishes sets of activations on disk; keeps the disk limit
- `cache_files`: creates, opens and verifies the files of one set

After Ctrl-C or SIGTERM, `cache_folder` keeps the activations on disk that are computed,
and the next run computes the others. Activations in memory are lost.

Words: a *cut* is the point between two sections of the encoder where a single tensor
passes, or `FEATURES`, the input of the head. The *prefix* of the model is before the
cut, the *remainder* behind it. A *column* is one value that each example has at a cut.
"""
