"""Flat graphs: from a restored function to a pure graph that can be cut and run.

In: the concrete function of a SavedModel and its variables. Out: a `FlatGraph`. Files,
in the order in which a function passes them:

* `flattener`: `flatten` inlines all calls and applies the next three modules.
* `graph_variables`: variables become placeholders, writes become outputs.
* `custom_gradients`: custom gradients that can be copied and saved with the graph.
* `random_ops`: random ops become stateless, so the same seed gives the same numbers.
* `flat_graph`: `FlatGraph`, the result, and small functions for nodes.
* `upsampling`: replaces resizes that XLA cannot compile.
* `tensor_shapes`: computes shapes from the inputs, so that more cuts are possible.
* `graph_runner`: puts the nodes into the graph that is being traced.

Words: a *flat* graph has no function calls, a *pure* graph has no side effects. A
variable's *position* is its index in the encoder's list of variables.
"""
