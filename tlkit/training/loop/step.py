"""Defines the step functions, which train on batches or evaluate them.

An update has one or several micro-batches. Each replica sums the losses of its examples
and differentiates the sum. The sums of all micro-batches and replicas are then divided
by the number of their examples, which weights each example equally, however uneven the
batches are. Many updates run in one call, in a loop inside the graph.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from .loop_progress import LoopProgress
from .loss_and_metrics import (
    EpochMetrics,
    GlobalLoss,
    batch_size,
    layer_losses,
    masks_of,
    set_masks,
)
from .replica_state import seed_generators, set_seeds
from .update import Update, is_applied_by_keras

# A batch is (inputs, labels, weights, present). `weights` is () if there are none, and
# `present` is () if no example is padding.

CALL_LIMIT = 256  # the maximum of updates in one call


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """The settings that all step functions of a run have in common.

    Attributes:
        optimizer: Built for all trained variables.
        loss: The loss.
        metrics: The metrics, which every batch updates.
        strategy: The strategy.
        seed: Decides the dropout masks.
        accumulates: Whether an update may have several micro-batches.
        jit_compile: Whether XLA compiles the forward and backward passes and the
            update.
        static_shapes: Whether batches are padded to one shape, as XLA and TPUs need it.
        run_eagerly: Whether Python runs every op of every batch, to find errors.
    """

    optimizer: keras.optimizers.Optimizer
    loss: GlobalLoss
    metrics: EpochMetrics
    strategy: tf.distribute.Strategy
    seed: int = 0
    accumulates: bool = False
    jit_compile: bool = False
    static_shapes: bool = False
    run_eagerly: bool = False

    def function(self, function: Callable) -> Callable:
        """Returns a function that TensorFlow traces, unless it runs eagerly."""
        if self.run_eagerly:
            return function
        return tf.function(function, autograph=False, reduce_retracing=True)


class TrainSteps:
    """Trains on batches, with many updates in one call.

    It is traced once, for one state of `trainable`, so each phase creates its own.

    Args:
        model: The model that takes the batches.
        variables: Its trained weights.
        settings: Those of the run.
        update: Updates the variables, in every replica.
        added_loss: Computes a scalar that is added to the loss of every batch.
        whole: The whole model, if `model` is only the trained end of it. The dropout
            masks are then those of the whole model.
    """

    def __init__(
        self,
        model: keras.Model,
        variables: Sequence[keras.Variable],
        *,
        settings: StepSettings,
        update: Update,
        added_loss: Callable[[], tf.Tensor] | None = None,
        whole: keras.Model | None = None,
    ):
        self.model, self.variables = model, list(variables)
        self.settings, self.update, self.added_loss = settings, update, added_loss
        # If an update has a single batch, its loss is divided before the backward pass.
        # Dividing the gradients would take another pass over all of them.
        self._single_sum = settings.loss.single
        # Set when `_forward_and_backward` is traced.
        self._without_gradient = [False] * len(self.variables)
        self._generators = seed_generators(whole or model)
        self._gradients = self._compiled(self._forward_and_backward)
        self._update_weights = self._compiled(self._apply_update)
        with settings.strategy.scope():
            self._sums = self._make_sums() if settings.accumulates else []
        self._progress = LoopProgress(settings.strategy)
        self._call = settings.function(self._many_updates)

    def __call__(
        self, batches, rates: Sequence[float], *, micro: int = 1, first: int = 0
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Makes an update for each of the learning rates.

        Args:
            batches: An iterator over batches.
            rates: `[updates]` learning rates, at most `CALL_LIMIT`.
            micro: Micro-batches of each update; 1 unless `settings.accumulates`.
            first: Batches that the run has had before, for the seeds.

        Returns:
            Float32 `[updates]` losses over all replicas; the index of the first update
            with a non-finite gradient, or -1 (that update and those after it are not
            made); and bool `[variables]`, which of its gradients were not finite.

        Raises:
            tf.errors.OutOfRangeError: There are no more batches. `done_before_end`
                returns the updates that were made until then.
        """
        # Padded to one length, so that the call is traced only once.
        padded = list(rates) + [0.0] * (CALL_LIMIT - len(rates))
        numbers = (len(rates), micro, first)
        try:
            return self._call(
                batches,
                tf.constant(padded, tf.float32),
                *(tf.constant(number, tf.int64) for number in numbers),
            )
        except StopIteration as error:  # raised instead if run eagerly
            raise tf.errors.OutOfRangeError(None, None, "end of data") from error

    def done_before_end(self) -> tuple[int, int]:
        """Returns what the last call did before it found no more batches.

        Batches of an incomplete update are dropped.

        Returns:
            The number of updates, and the index of the first one with a non-finite
            gradient, or -1.
        """
        for total in self._sums:
            for local in self.settings.strategy.experimental_local_results(total):
                local.assign(tf.zeros_like(local))
        return self._progress.read()

    @property
    def missing(self) -> tuple[str, ...]:
        """Paths of the variables without a gradient, known after tracing."""
        pairs = zip(self.variables, self._without_gradient, strict=True)
        return tuple(variable.path for variable, without in pairs if without)

    def _compiled(self, function: Callable) -> Callable:
        if not self.settings.jit_compile or self.settings.run_eagerly:
            return function
        return tf.function(function, autograph=False, jit_compile=True)

    def _make_sums(self) -> list[tf.Variable]:
        """Creates each replica's sums over micro-batches: gradients, three scalars."""
        shapes = [(v.shape, v.dtype) for v in self.variables]
        return [
            tf.Variable(tf.zeros(shape, dtype), trainable=False)
            for shape, dtype in [*shapes, *[((), "float32")] * 3]
        ]

    # === Many updates ===

    def _many_updates(self, batches, rates, count, micro, first):
        strategy, optimizer = self.settings.strategy, self.settings.optimizer
        self._progress.begin()
        losses = tf.TensorArray(tf.float32, tf.cast(count, tf.int32))

        def one_update(i, bad, bad_flags, losses):
            number = first + i * micro
            if self.settings.accumulates:
                number = self._accumulate(batches, number, micro)
            arguments = (*next(batches), tf.gather(rates, i), number, micro, bad < 0)
            results = strategy.run(self._finish, arguments)
            loss, flags, updated = tf.nest.map_structure(
                lambda value: strategy.experimental_local_results(value)[0], results
            )
            if not is_applied_by_keras(optimizer):
                iterations = optimizer.iterations
                iterations.assign_add(tf.cast(updated, iterations.dtype))
            bad = tf.where((bad < 0) & tf.reduce_any(flags), i, bad)
            bad_flags = tf.where(bad == i, flags, bad_flags)
            with tf.control_dependencies([loss, bad]):
                self._progress.record(i + 1, bad)
            return i + 1, bad, bad_flags, losses.write(tf.cast(i, tf.int32), loss)

        none = tf.zeros([len(self.variables)], tf.bool)
        start = (tf.constant(0, tf.int64), tf.constant(-1, tf.int64), none, losses)
        _, bad, bad_flags, losses = tf.while_loop(
            lambda i, *_: i < count, one_update, start, parallel_iterations=1
        )
        return losses.stack(), bad, bad_flags

    def _accumulate(self, batches, number, micro):
        """Adds the gradients of all micro-batches of an update except the last one.

        Returns the number of the last micro-batch.
        """

        def one_batch(k):
            self.settings.strategy.run(self._add, (*next(batches), number + k, micro))
            return (k + 1,)

        start = (tf.constant(0, tf.int64),)
        (k,) = tf.while_loop(
            lambda k: k + 1 < micro, one_batch, start, parallel_iterations=1
        )
        return number + k

    # === In a replica ===

    def _add(self, inputs, labels, weights, present, number, micro):
        sums = self._one_batch(inputs, labels, weights, present, number, micro)
        for total, value in zip(self._sums, sums, strict=True):
            total.assign_add(value)

    def _finish(
        self, inputs, labels, weights, present, learning_rate, number, micro, allowed
    ):
        sums = self._one_batch(inputs, labels, weights, present, number, micro)
        if self._sums:
            sums = [a + b for a, b in zip(self._sums, sums, strict=True)]
            for total in self._sums:
                total.assign(tf.zeros_like(total))
        *gradients, total, added, count = self._over_replicas(sums)
        return self._update_weights(
            gradients, total, added, count, learning_rate, allowed
        )

    def _one_batch(self, inputs, labels, weights, present, number, micro):
        """Computes a micro-batch's gradients and sums: loss, added loss, examples."""
        weights, present = _or_none(weights), _or_none(present)
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        set_seeds(self._generators, self.settings.seed, number, replica)
        replicas = self.settings.strategy.num_replicas_in_sync
        batches = tf.cast(micro * replicas, tf.float32)
        sums, batch_loss, outputs, masks = self._gradients(
            inputs, labels, weights, present, batches
        )
        set_masks(outputs, masks)
        # A metric that reads only static shapes would not wait for the batch, and would
        # count one even where the data has ended.
        with tf.control_dependencies([batch_loss]):
            self.settings.metrics.update(
                batch_loss,
                labels,
                outputs,
                weights,
                present,
                batch_size(inputs),
                static=self.settings.static_shapes,
            )
        return sums

    def _forward_and_backward(self, inputs, labels, weights, present, batches):
        loss = self.settings.loss
        values = [variable.value for variable in self.variables]
        # Watching only the trained variables keeps frozen blocks off the tape.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            for value in values:
                tape.watch(value)
            outputs = self.model(inputs, training=True)
            value, shown = loss.value(
                inputs,
                labels,
                outputs,
                weights,
                present,
                training=True,
                static=self.settings.static_shapes,
            )
            added = tf.constant(0.0) if loss.overridden else layer_losses(self.model)
            if self.added_loss is not None:
                added += self.added_loss()
            batch_loss = shown + added
            if self._single_sum:
                total, count = value, tf.constant(1.0)
            else:
                count = loss.count(weights, present, batch_size(inputs))
                total = loss.total(value, count)
                added *= loss.added_loss_factor(count, batches)
            objective = self.settings.optimizer.scale_loss(total + added)
        gradients = tape.gradient(objective, values)
        self._without_gradient = [gradient is None for gradient in gradients]
        # Made dense: the norm of sparse gradients with repeated rows would be wrong.
        dense = [
            tf.zeros_like(value) if gradient is None else tf.convert_to_tensor(gradient)
            for value, gradient in zip(values, gradients, strict=True)
        ]
        sums = [*dense, total, added, count]
        return sums, batch_loss, outputs, masks_of(outputs)

    def _over_replicas(self, values):
        if self.settings.strategy.num_replicas_in_sync == 1:
            return values
        context = tf.distribute.get_replica_context()
        return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _apply_update(self, gradients, total, added, count, learning_rate, allowed):
        divisor = tf.constant(1.0)
        if not self._single_sum:
            divisor = self.settings.loss.divisor(count)
            gradients = [g / tf.cast(divisor, g.dtype) for g in gradients]
        # The norm takes one pass over a gradient; `is_finite` and a reduction take two.
        norms = tf.stack([tf.nn.l2_loss(tf.cast(g, tf.float32)) for g in gradients])
        not_finite = tf.logical_not(tf.math.is_finite(norms))
        if isinstance(self.settings.optimizer, keras.optimizers.LossScaleOptimizer):
            not_finite = tf.zeros_like(not_finite)  # `self.update` skips such updates
        updates = allowed & tf.logical_not(tf.reduce_any(not_finite))

        def update():
            # A variable without a gradient must not decay either.
            pairs = zip(gradients, self._without_gradient, strict=True)
            masked = [None if without else g for g, without in pairs]
            return self.update(masked, learning_rate)

        updated = tf.cond(updates, update, lambda: tf.constant(False))
        return (total + added) / divisor, not_finite, updated


def make_test_steps(
    model: keras.Model, settings: StepSettings
) -> Callable[[Any, int], int]:
    """Returns a function that evaluates batches and updates the metrics.

    Its arguments are an iterator and the number of batches. It returns how many batches
    there were, which is lower if the data ends before.
    """
    progress = LoopProgress(settings.strategy)
    loss, static = settings.loss, settings.static_shapes

    def replica_step(inputs, labels, weights, present):
        weights, present = _or_none(weights), _or_none(present)
        outputs = model(inputs, training=False)
        _, batch_loss = loss.value(
            inputs,
            labels,
            outputs,
            weights,
            present,
            training=False,
            static=static,
        )
        if not loss.overridden:
            batch_loss += layer_losses(model)
        size = batch_size(inputs)
        with tf.control_dependencies([batch_loss]):  # see `TrainSteps._one_batch`
            settings.metrics.update(
                batch_loss, labels, outputs, weights, present, size, static=static
            )

    @settings.function
    def many_batches(batches, count):
        progress.begin()

        def one_batch(i):
            batch = next(batches)
            settings.strategy.run(replica_step, batch)
            tensors = tf.nest.flatten(batch, expand_composites=True)
            with tf.control_dependencies(tensors):
                progress.record(i + 1, tf.constant(-1, tf.int64))
            return (i + 1,)

        start = (tf.constant(0, tf.int64),)
        tf.while_loop(lambda i: i < count, one_batch, start, parallel_iterations=1)

    def evaluate(batches, count):
        try:
            many_batches(batches, tf.constant(count, tf.int64))
        except (tf.errors.OutOfRangeError, StopIteration):  # the second if run eagerly
            return progress.read()[0]
        return count

    return evaluate


def _or_none(value):
    return None if isinstance(value, tuple) and not value else value
