"""Plans a schedule for a model: trained weights, learning rates, length and cache.

A schedule, the model and the amount of data come in; a frozen `Plan` goes out, one
`PhasePlan` a phase, before any compute is spent. Nothing in the model changes.

- `phase`: `Phase`, one period of training, and the checks of its arguments.
- `schedules`: ready lists of phases, and the learning rate of every step.
- `trainable_selection`: which weights a phase trains, as positions in `model.weights`,
  computed once a phase. They hold for a copy of the model too.
- `layer_decay`: lower learning rates for earlier blocks.
- `cache_plan`: which activations of frozen blocks are cached and where, if it pays.
- `plan`: puts these together and prints the table.

A weight is *trained* (by the optimizer), *free* (changes without it, such as the
statistics of batch norms) or *frozen*. A *cut* is the border before which all sections
of the encoder are frozen.
"""
