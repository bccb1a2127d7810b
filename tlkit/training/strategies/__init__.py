"""Strategies: the devices and processes on which a model is trained.

In: the name of a strategy, and a model built anywhere. Out: a strategy, and the model,
or a copy of it, in the strategy's scope. The files, in the order of use:

- `strategies`: `tlkit.strategy`; chooses the strategy, and whether to copy the model
- `rendezvous`: the workers in `TF_CONFIG` wait for each other, with a timeout
- `scope_copies`: copies a model into a scope, and its state back
- `config_clones`, `layer_tree`: new Keras objects from configs; layers inside layers
- `workers`: sums and broadcasts between workers; errors that name a lost worker

Words, as in TensorFlow: a *replica* is a copy of the variables on one device, a
*worker* a process with one or more replicas, the *chief* the worker that prints and
writes files. A *scope* is that of `strategy.scope()`.
"""
