"""The fallback for SavedModels that cannot be split into blocks: calls them whole."""

from typing import Any

import keras
import tensorflow as tf

from ..errors import EncoderError
from .encoder import Block, Encoder
from .saved_model.saved_model_reader import Restored


class RestoredEncoder(Encoder):
    """An encoder whose network could not be opened and is a single block.

    Like `hub.KerasLayer`, it runs in training mode only if it is trainable. Dropout and
    batch norms of the whole network are then in training mode.

    Args:
        restored: The SavedModel.
        why: The reason why the network could not be opened.
    """

    opened = False

    def __init__(self, restored: Restored, why: str, **kwargs):
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        self.why_not_opened = why
        self.supports_jit = False
        self.batch_norm = "train"
        self.module = restored.module  # tracked: exports need its tables and assets
        self._endpoints = restored.endpoints
        self._regularization = restored.losses
        self._inputs, self._outputs = restored.inputs, restored.outputs
        self._learnable, self._output = restored.learnable, restored.output
        self._variables = [self._wrap(i, v) for i, v in enumerate(restored.variables)]
        self._block = self._make_block()
        self.built = True

    def _wrap(self, position: int, variable: tf.Variable) -> keras.Variable:
        wrapped = keras.Variable(
            variable,
            trainable=position in self._learnable,
            dtype=variable.dtype.name,
            autocast=False,
            name=variable.name.split(":")[0].replace("/", "_"),
        )
        # Private: the only way for a layer to own a variable that it did not create.
        # tests/encoders/test_restored_encoder.py notices when it changes.
        self._track_variable(wrapped)
        return wrapped

    def _make_block(self) -> Block:
        variables = self._variables
        norms = [v for v in variables if "moving_variance" in v.name]
        learnable = tuple(variables[position] for position in sorted(self._learnable))
        return Block("whole", tuple(variables), learnable, len(norms))

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (self._block,)

    @property
    def inputs_spec(self) -> Any:
        return self._inputs

    @property
    def outputs_spec(self) -> Any:
        return self._outputs

    @property
    def regularization(self) -> tuple[Any, ...]:
        """Returns the regularization losses, as functions without arguments."""
        return self._regularization

    def call(self, inputs, training=False):
        trained = self._block.trainable
        outputs = self.run_whole(inputs, bool(training) and trained and self.dropout)
        if trained:
            for loss in self._regularization:
                self.add_loss(loss())
        return outputs

    def run_whole(self, inputs: Any, training: bool) -> Any:
        """Runs the restored function; `training` applies even to a frozen encoder."""
        inputs = tf.nest.map_structure(
            lambda spec, tensor: tf.cast(tensor, spec.dtype), self._inputs, inputs
        )
        outputs = self._endpoints[training](inputs)
        if self._output is None or isinstance(self._output, str):
            return outputs if self._output is None else outputs[self._output]
        return {name: outputs[name] for name in self._output}

    def get_config(self) -> dict[str, Any]:
        raise EncoderError(
            "This encoder cannot be saved in a .keras file, since its network could "
            f"not be opened: {self.why_not_opened}. Save the weights with "
            "model.save_weights(path), or the served model with tlkit.export."
        )
