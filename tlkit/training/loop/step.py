"""The step functions: batches move the weights, or are only measured.

One update is made of one or several micro-batches. Each replica sums the losses of its
examples, and differentiates the sum; the sums of all micro-batches and replicas are
then divided by all their examples, so that every example weighs alike, however the
batches came out. Many updates run in one call, in a loop inside the graph.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from .loss_and_metrics import Meters, Objective
from .replica_state import seed_generators, set_seeds
from .update import Update, counts_itself

# A batch, as the loop hands it out: inputs, labels, weights and `present`. The last two
# are () where every example counts as one.
Batch = tuple[Any, Any, Any, Any]

CALL_LIMIT = 256  # updates in one call, at most


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all step functions of a run have in common.

    Attributes:
        optimizer: Built for what is trained.
        objective: The loss.
        meters: Take in every batch.
        strategy: Where it runs.
        seed: Decides what dropout leaves out.
        accumulates: Whether an update may have more than one micro-batch.
        jit_compile: Whether XLA compiles the forward and backward passes and the
            update.
        static_shapes: Whether all batches have the same shape, filled up if need be, as
            XLA and a TPU want it.
    """

    optimizer: keras.optimizers.Optimizer
    objective: Objective
    meters: Meters
    strategy: tf.distribute.Strategy
    seed: int = 0
    accumulates: bool = False
    jit_compile: bool = False
    static_shapes: bool = False


class TrainSteps:
    """Trains on batches, many in one call.

    It is traced once, so it holds for one state of `trainable`: a phase makes its own.

    Args:
        model: What is trained.
        variables: Its weights that are trained.
        setting: The run's.
        update: Moves the variables, in every replica.
        added_loss: Gives a scalar that is added to the loss, whatever the batch.
        whole: The model that `model` is a part of, whose random layers draw alike then.
    """

    def __init__(
        self,
        model: keras.Model,
        variables: Sequence[keras.Variable],
        *,
        setting: Setting,
        update: Update,
        added_loss: Callable[[], tf.Tensor] | None = None,
        whole: keras.Model | None = None,
    ):
        self.model, self.variables = model, list(variables)
        self.setting, self.update, self.added_loss = setting, update, added_loss
        # All examples of an update are in one sum: its loss is divided by them, which
        # saves a pass over all gradients.
        replicas = setting.strategy.num_replicas_in_sync
        self._at_once = replicas == 1 and not setting.accumulates
        # Known when it has been traced: which variables have no gradient.
        self._without = [False] * len(self.variables)
        self._generators = seed_generators(whole or model)
        self._passes = self._compiled(self._forward_and_backward)
        self._apply = self._compiled(self._apply_update)
        with setting.strategy.scope():
            self._sums = self._make_sums() if setting.accumulates else []
        self._call = tf.function(self._many, autograph=False, reduce_retracing=True)

    def __call__(
        self, batches, rates: Sequence[float], *, micro: int = 1, first: int = 0
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Makes an update for each of the learning rates.

        Args:
            batches: An iterator over batches.
            rates: `[updates]` learning rates, at most `CALL_LIMIT`.
            micro: Micro-batches of each update; 1 unless the setting accumulates.
            first: How many batches the run has had, for the seeds.

        Returns:
            Float32 `[updates]` losses over all replicas; the index of the first update
            that was not made since a gradient was not finite, or -1 (none is made after
            it); and bool `[variables]`: whose gradients they were.

        Raises:
            tf.errors.OutOfRangeError: There are no more batches.
        """
        # Of one length, or each would be traced.
        padded = list(rates) + [0.0] * (CALL_LIMIT - len(rates))
        numbers = (len(rates), micro, first)
        return self._call(
            batches,
            tf.constant(padded, tf.float32),
            *(tf.constant(number, tf.int64) for number in numbers),
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Paths of the variables without a gradient, once it has been traced."""
        pairs = zip(self.variables, self._without, strict=True)
        return tuple(variable.path for variable, without in pairs if without)

    @property
    def traces(self) -> int:
        """How often the call was traced."""
        return self._call.experimental_get_tracing_count()

    def _compiled(self, function: Callable) -> Callable:
        if not self.setting.jit_compile:
            return function
        return tf.function(function, autograph=False, jit_compile=True)

    def _make_sums(self) -> list[tf.Variable]:
        """Each replica's sums over micro-batches: gradients, then three scalars."""
        shapes = [(v.shape, v.dtype) for v in self.variables]
        return [
            tf.Variable(tf.zeros(shape, dtype), trainable=False)
            for shape, dtype in [*shapes, *[((), "float32")] * 3]
        ]

    # === Many updates ===

    def _many(self, batches, rates, count, micro, first):
        strategy = self.setting.strategy
        losses = tf.TensorArray(tf.float32, tf.cast(count, tf.int32))
        none = tf.zeros([len(self.variables)], tf.bool)

        def one(i, bad, flags, losses):
            at = first + i * micro
            if self.setting.accumulates:
                at = self._accumulate(batches, at, micro)
            rate = tf.gather(rates, i)
            found = strategy.run(
                self._finish, (*next(batches), rate, at, micro, bad < 0)
            )
            local = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], found
            )
            loss, wrong, made = local
            if not counts_itself(self.setting.optimizer):
                iterations = self.setting.optimizer.iterations
                iterations.assign_add(tf.cast(made, iterations.dtype))
            bad = tf.where((bad < 0) & tf.reduce_any(wrong), i, bad)
            flags = tf.where(bad == i, wrong, flags)
            return i + 1, bad, flags, losses.write(tf.cast(i, tf.int32), loss)

        start = (tf.constant(0, tf.int64), tf.constant(-1, tf.int64), none, losses)
        _, bad, flags, losses = tf.while_loop(
            lambda i, *_: i < count, one, start, parallel_iterations=1
        )
        return losses.stack(), bad, flags

    def _accumulate(self, batches, at, micro):
        """Takes all micro-batches of an update but the last; gives its number."""

        def one(k):
            self.setting.strategy.run(self._add, (*next(batches), at + k, micro))
            return (k + 1,)

        start = (tf.constant(0, tf.int64),)
        (k,) = tf.while_loop(lambda k: k + 1 < micro, one, start, parallel_iterations=1)
        return at + k

    # === In a replica ===

    def _add(self, inputs, labels, weights, present, at, micro):
        found = self._one_batch(inputs, labels, weights, present, at, micro)
        for total, value in zip(self._sums, found, strict=True):
            total.assign_add(value)

    def _finish(self, inputs, labels, weights, present, rate, at, micro, allowed):
        found = self._one_batch(inputs, labels, weights, present, at, micro)
        if self._sums:
            found = [a + b for a, b in zip(self._sums, found, strict=True)]
            for total in self._sums:
                total.assign(tf.zeros_like(total))
        *gradients, total, extra, count = self._over_replicas(found)
        return self._apply(gradients, total, extra, count, rate, allowed)

    def _one_batch(self, inputs, labels, weights, present, at, micro):
        """A micro-batch's gradients and sums: losses, added losses, examples."""
        weights, present = _given(weights), _given(present)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        set_seeds(self._generators, self.setting.seed, at, replica)
        replicas = self.setting.strategy.num_replicas_in_sync
        parts = tf.cast(micro * replicas, tf.float32)
        sums, outputs = self._passes(inputs, labels, weights, present, parts)
        *_, total, extra, count = sums
        objective = self.setting.objective
        added = tf.math.divide_no_nan(extra, objective.share(count, parts))
        shown = total / objective.divisor(count) + added
        self.setting.meters.update(shown, count, labels, outputs, present)
        return sums

    def _forward_and_backward(self, inputs, labels, weights, present, parts):
        objective = self.setting.objective
        values = [variable.value for variable in self.variables]
        # Watching what is trained and nothing else keeps frozen blocks off the tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for value in values:
                tape.watch(value)
            outputs = self.model(inputs, training=True)
            total, count = objective.sums(labels, outputs, weights, present)
            added = extra_losses(self.model)
            if self.added_loss is not None:
                added += self.added_loss()
            extra = added * objective.share(count, parts)
            loss = total + extra
            if self._at_once:
                loss /= objective.divisor(count)
            scaled = self.setting.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, values)
        self._without = [gradient is None for gradient in gradients]
        # Dense ones, since the norm of rows that occur twice is not that of their sum.
        dense = [
            tf.zeros_like(value) if gradient is None else tf.convert_to_tensor(gradient)
            for value, gradient in zip(values, gradients, strict=True)
        ]
        return [*dense, total, extra, count], outputs

    def _over_replicas(self, values):
        if self.setting.strategy.num_replicas_in_sync == 1:
            return values
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _apply_update(self, gradients, total, extra, count, rate, allowed):
        divisor = self.setting.objective.divisor(count)
        if not self._at_once:
            gradients = [g / tf.cast(divisor, g.dtype) for g in gradients]
        # One pass over each, where looking for what is not finite would take two.
        norms = tf.stack([tf.nn.l2_loss(tf.cast(g, tf.float32)) for g in gradients])
        wrong = tf.logical_not(tf.math.is_finite(norms))
        if isinstance(self.setting.optimizer, keras.optimizers.LossScaleOptimizer):
            wrong = tf.zeros_like(wrong)  # which skips such a step, and is right to
        made = allowed & tf.logical_not(tf.reduce_any(wrong))

        def move():
            # What no output depends on has no gradient, and must not decay either.
            pairs = zip(gradients, self._without, strict=True)
            self.update([None if without else g for g, without in pairs], rate)
            return True

        tf.cond(made, move, lambda: False)
        return (total + extra) / divisor, wrong, made


def make_test_steps(
    model: keras.Model,
    *,
    objective: Objective,
    meters: Meters,
    strategy: tf.distribute.Strategy,
) -> Callable[[Any, int], None]:
    """Makes the function that measures batches: of an iterator and their number."""

    def replica_step(inputs, labels, weights, present):
        weights, present = _given(weights), _given(present)
        outputs = model(inputs, training=False)
        total, count = objective.sums(labels, outputs, weights, present)
        own = total / objective.divisor(count) + extra_losses(model)
        meters.update(own, count, labels, outputs, present)

    @tf.function(autograph=False, reduce_retracing=True)
    def many(batches, count):
        def one(i):
            strategy.run(replica_step, next(batches))
            return (i + 1,)

        start = (tf.constant(0, tf.int64),)
        tf.while_loop(lambda i: i < count, one, start, parallel_iterations=1)

    return lambda batches, count: many(batches, tf.constant(count, tf.int64))


def _given(value):
    return None if isinstance(value, tuple) else value


def extra_losses(model: keras.Model) -> tf.Tensor:
    """Regularization and what layers added in this call, as a float32 scalar."""
    losses = [tf.reduce_sum(tf.cast(loss, tf.float32)) for loss in model.losses]
    return tf.add_n(losses) if losses else tf.constant(0.0)
