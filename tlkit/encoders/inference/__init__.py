"""Fast inference of frozen blocks: the weights are constants folded into the graph.

In: an opened encoder and the cuts at which tensors are needed. Out: `FrozenForward`,
a function that computes them. Files, in the order of the rewrites:

* `forward_pass`: `FrozenForward`; `fold` applies the rewrites below.
* `folded_graph`: the graph while it is rewritten, with its constants.
* `matrix_products`: an `Einsum` with a constant kernel becomes a matrix product.
* `batch_norms`: batch norms and other scalings move into the kernel before them.
* `pads_and_layer_norms`: padding moves into convolutions; layer norms keep their
  epsilon, which TensorFlow's optimizer would change.

Training uses `..network` instead; there weights are arguments and can be trained.
"""

from .forward_pass import FrozenForward as FrozenForward
