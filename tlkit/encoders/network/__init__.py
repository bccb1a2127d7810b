"""The opened network: two flat graphs cut into the same sections, run on demand.

In: the inference graph and the training graph of `..graph`. Out: a `Network`, which the
encoder calls with the values of its weights. Files, in the order of use:

* `sections`: finds the points where one tensor passes, in both graphs.
* `block_names`: names the block of each section by the names of its variables.
* `network`: `Network` runs sections, and lists the variables and inputs of each.
* `section_run`: the request and the result of one such run.
* `frozen_batch_norms`: a training graph whose batch norms do not train.
* `network_files`: writes a network into a `.keras` file and reads it back.

Words: a *cut* is a point where one tensor passes. A *section* lies
between two cuts. Consecutive sections with one name are a *block* for the user, and
each of them is then a *part* of it. A *tap* gives a user the tensor behind a section.
"""
