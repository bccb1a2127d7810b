"""The opened network: two flat graphs cut into the same sections, run on demand.

In: the inference graph and the training graph of `..graph`. Out: a `Network`, which the
encoder calls with the values of its weights. Files, in the order of use:

* `sections`: finds the cuts that both graphs have, and the sections between them.
* `block_names`: names the block of each section by the names of its variables.
* `network`: `Network` runs sections, and lists the variables and inputs of each.
* `section_run`: the request and the result of one such run.
* `frozen_batch_norms`: a training graph whose batch norms use running statistics.
* `network_files`: writes a network into a `.keras` file and reads it back.

Words: a *cut* is a point of a graph where a single tensor passes. A *section* lies
between two cuts. Consecutive sections with the same name form a *block*, which users
see; each of these sections is a *part* of the block. A *tap* returns the tensor at the
end of a section.
"""
