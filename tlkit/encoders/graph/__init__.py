"""Flat graphs: from a restored function to a pure graph that can be cut and run.

In: the concrete function of a SavedModel and its variables. Out: a `FlatGraph`. Files,
in the order in which a function passes them:

* `flattener`: `flatten` inlines all calls and uses the next three.
* `graph_variables`: variables become placeholders, writes become outputs.
* `custom_gradients`: gradients that move with the graph, also in a `.keras` file.
* `random_ops`: random ops become stateless, so a seed repeats them.
* `flat_graph`: `FlatGraph`, the result, and small functions for nodes.
* `upsampling`, `tensor_shapes`: rewrites that let XLA compile a graph, and let it be
  cut where only a shape would tie its parts together.
* `graph_runner`: puts the nodes into the graph that is being traced.

Words: a graph is *flat* without function calls and *pure* without side effects. A
variable's *position* is its index in the encoder's list of variables.
"""
