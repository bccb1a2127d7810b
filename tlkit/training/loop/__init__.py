"""Trains one phase: updates in a graph, epochs, metrics, checks and interrupts.

A model in its scope, a `PhasePlan` and feeds come in; trained weights, a `PhaseResult`
and Keras's history go out. `training/phase_loop.py` calls these modules, an epoch at a
time:

- `run`: `Run`, all state that outlasts a phase, and `Position`, the progress.
- `optimizer`: the default optimizer; `optimizer_slots` builds or extends one;
  `optimizer_contract` lists the treatment of each method that a class may override.
- `learning_rate`: sets the rate of each step, from the schedule and from callbacks.
- `epoch`: chooses how many updates one call makes, and validates after an epoch.
- `step`: one call: forward and backward passes, sums over micro-batches and replicas.
- `loop_progress`: counts the updates of a call, in case the data ends during it.
- `compiled_model`: reads what a model is compiled with, and compiles it for a run.
- `loss_and_metrics`: the loss over the global batch, the metrics over an epoch.
- `replica_state`: seeds of dropout, and the mean of batch-norm statistics.
- `update`: clips, decays and updates the weights; `update_counts` counts the updates of
  each variable for the bias correction; `averages`: moving averages of the weights.
- `l2_sp`: the penalty on the distance to the pretrained weights.
- `patience`: ends a phase that stops improving, and restores its best weights.
- `frozen_check`: verifies that no frozen weight changed.
- `display`, `xla_check`: progress on stderr; XLA's errors, explained.

Ctrl-C and SIGTERM: if `fit` has a `directory`, `interrupts` handles them. While a phase
is trained, the handler only records the signal. After the current call of `step`, in
training or validation, `Saver.save_if_due` writes a checkpoint and raises
`KeyboardInterrupt` (after SIGTERM `SystemExit`). Outside a phase, where data is read
and frozen blocks are computed, the handler raises it at once; then
`Saver.saving_if_interrupted` writes the checkpoint. A second Ctrl-C takes effect at
once, without a checkpoint, as the first does without a `directory`. In each case `fit`
copies the weights back to the user's model.
"""
