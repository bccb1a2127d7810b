"""An encoder that runs the graphs of an opened SavedModel with Keras weights."""

import itertools
import pathlib
import re
import types
import weakref
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

# Private: the only way to read a variable without any tape recording it.
# tests/encoders/test_opened_encoder.py notices when it changes.
from tensorflow.python.eager import record

from ..errors import EncoderError
from .encoder import Block, Encoder
from .encoder_prefix import all_inputs
from .input_check import cast_inputs
from .network import network_files
from .network.block_names import name_sections
from .network.network import Network
from .network.section_run import SectionRun

# Networks by digest, so that `from_config`, which clones a model or copies it into a
# strategy's scope, needs no file. A network is freed with its last encoder.
_NETWORKS: weakref.WeakValueDictionary[str, Network] = weakref.WeakValueDictionary()


@keras.saving.register_keras_serializable(package="tlkit")
class OpenedEncoder(Encoder):
    """An encoder whose network was opened; `tlkit.load_encoder` returns it.

    Args:
        variables: The `VariableSpec` of each variable as JSON, by position.
        segments: For each section, the positions of its variables.
        batch_norms: For each section, its number of batch norms.
        inputs: The nest of input specs, as JSON.
        outputs: The nest of output specs, as JSON.
        digest: SHA-256 of the network's graphs.
        network: The network. If `None`, a network with this digest is taken from memory
            or read by `load_assets`.
        draws: Whether training draws random numbers.
        trained: Positions of the trainable variables; all learnable ones if `None`.
        names: For each section, the name of its block; derived from the names of the
            variables if `None`.
    """

    def __init__(
        self,
        *,
        variables: Sequence[dict[str, Any]],
        segments: Sequence[Sequence[int]],
        batch_norms: Sequence[int],
        inputs: Any,
        outputs: Any,
        digest: str,
        network: Network | None = None,
        draws: bool,
        trained: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
        batch_norm: str = "frozen",
        **kwargs,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(autocast=False, **kwargs)
        self.batch_norm = batch_norm
        self._specs = [network_files.VariableSpec(**v) for v in variables]
        self._sections = [list(section) for section in segments]
        self._batch_norms = list(batch_norms)
        self._inputs_json, self._outputs_json = inputs, outputs
        self._digest = digest
        # While Keras loads a `.keras` file, there is no network before `load_assets`.
        self._network = _NETWORKS.get(digest)
        if network is not None:
            self._network = _NETWORKS.setdefault(digest, network)
        if names is None:
            names = name_sections(
                [[self._specs[p].name for p in section] for section in self._sections]
            )
        self._section_names = list(names)
        # TensorFlow tracks a dict and cannot export it if its keys are numbers, but it
        # does not track a mapping proxy.
        self._weights_of = types.MappingProxyType(self._create_weights(trained))
        self._blocks = self._create_blocks()
        self._seeds = keras.random.SeedGenerator(name="seeds") if draws else None
        self.built = True

    # === Weights and blocks ===

    def _create_weights(self, trained: Sequence[int] | None) -> dict:
        """Creates the Keras variables in one layer for each block.

        Returns the variables by position.
        """
        pairs = zip(self._section_names, self._sections, strict=True)
        used = set(itertools.chain.from_iterable(self._sections))
        layers = [
            (name, [p for _, section in group for p in section])
            for name, group in itertools.groupby(pairs, lambda pair: pair[0])
        ]
        layers.append(("unused", [p for p in range(len(self._specs)) if p not in used]))
        weights: dict[int, keras.Variable] = {}
        # One layer for each block, so that the path of a weight contains its block.
        self.layers = [
            self._weight_layer(*layer, weights) for layer in layers if layer[1]
        ]
        trainable = used if trained is None else used & set(trained)
        for position, variable in weights.items():
            if self._specs[position].learnable:
                variable.trainable = position in trainable
        return weights

    def _weight_layer(
        self, name: str, positions: Sequence[int], weights: dict[int, keras.Variable]
    ) -> keras.layers.Layer:
        """Creates a layer with the weights of a block, and adds them to `weights`."""
        layer = keras.layers.Layer(name=name, dtype=self.dtype_policy, autocast=False)
        names: set[str] = set()
        for position in positions:
            spec = self._specs[position]
            # Keras allows no "/" in a variable's name.
            plain = re.sub(r"[^A-Za-z0-9_.]+", "_", spec.name).strip("_")
            plain = plain if plain not in names else f"{plain}_{position}"
            names.add(plain)
            weights[position] = layer.add_weight(
                name=plain,
                shape=tuple(spec.shape),
                dtype=spec.dtype,
                initializer="zeros",
                trainable=spec.learnable,
                autocast=False,
            )
        layer.built = True
        return layer

    def _create_blocks(self) -> tuple[Block, ...]:
        blocks = []
        names = enumerate(self._section_names)
        for name, group in itertools.groupby(names, key=lambda pair: pair[1]):
            inside = [i for i, _ in group]
            parts = [self._block(f"{name}.{k}", [i]) for k, i in enumerate(inside)]
            blocks.append(self._block(name, inside, parts if len(parts) > 1 else ()))
        return tuple(blocks)

    def _block(self, name: str, sections: Sequence[int], parts=()) -> Block:
        positions = [p for i in sections for p in self._sections[i]]
        learnable = [p for p in positions if self._specs[p].learnable]
        return Block(
            name=name,
            variables=tuple(self._weights_of[p] for p in positions),
            learnable=tuple(self._weights_of[p] for p in learnable),
            batch_norms=sum(self._batch_norms[i] for i in sections),
            parts=tuple(parts),
        )

    @property
    def blocks(self) -> tuple[Block, ...]:
        return self._blocks

    @property
    def inputs_spec(self) -> Any:
        return network_files.specs_from_json(self._inputs_json)

    @property
    def outputs_spec(self) -> Any:
        return network_files.specs_from_json(self._outputs_json)

    # === Running ===

    @property
    def network(self) -> Network:
        """Returns the network, which holds the graphs.

        Raises:
            EncoderError: The network was freed with the encoders that used it.
        """
        if self._network is None:
            raise EncoderError(
                f"The network of {self.name!r} is not in memory. Call from_config "
                "while the original encoder exists, or load the model's .keras file: "
                "keras.saving.load_model(path)."
            )
        return self._network

    def call(self, inputs, training=False, taps=None, start=0):
        cut = None
        if start:
            cut, flat = inputs["cut"], all_inputs(self, inputs["inputs"])
        else:
            flat = cast_inputs(self.inputs_spec, inputs)
        tapped = {} if taps is None else self._tapped(taps)
        runs = self._section_runs(bool(training), frozenset(tapped.values()), start)
        seed = self._seed() if any(run.training for run in runs) else None
        outputs: dict[int, tf.Tensor] = {}
        tap_tensors: dict[int, tf.Tensor] = {}
        for run in runs:
            results = self.network.run(run, cut, flat, self._value, seed)
            cut = results.cut
            outputs |= results.outputs
            tap_tensors |= results.taps
            for position, value in results.updates.items():
                self._weights_of[position].assign(value)
        trainable = frozenset(p for p, v in self._weights_of.items() if v.trainable)
        for loss in self.network.regularization(self._value, trainable):
            self.add_loss(loss)
        if taps is not None:
            return {name: tap_tensors[section] for name, section in tapped.items()}
        ordered = [outputs[i] for i in range(len(outputs))]
        return tf.nest.pack_sequence_as(self.outputs_spec, ordered)

    def run_to(self, inputs: Any, cuts: Sequence[int]) -> dict[int, tf.Tensor]:
        """Computes the tensors at some cuts in inference mode; returns them by cut.

        A cut is the index of the section that begins there; `cuts` must ascend.
        """
        flat = cast_inputs(self.inputs_spec, inputs)
        tensors, cut = {}, None
        for first, end in itertools.pairwise([0, *cuts]):
            run = SectionRun(first, end - 1)
            cut = self.network.run(run, cut, flat, self._value).cut
            tensors[end] = cut
        return tensors

    def compute_output_spec(self, inputs, training=None, taps=None):
        if taps is None:
            return super().compute_output_spec(inputs, training)
        specs = tf.nest.map_structure(_spec, inputs)
        function = tf.function(lambda x: self.call(x, taps=taps), autograph=False)
        outputs = function.get_concrete_function(specs).structured_outputs
        return {
            name: keras.KerasTensor(tuple(spec.shape), spec.dtype.name)
            for name, spec in outputs.items()
        }

    @property
    def sections(self) -> tuple[tuple[keras.Variable, ...], ...]:
        """Returns the variables of each section, from one cut to the next."""
        of = self._weights_of
        return tuple(tuple(of[p] for p in section) for section in self._sections)

    @property
    def named_variables(self) -> tuple[tuple[Any, keras.Variable], ...]:
        """Returns each variable with its spec in the SavedModel, by position."""
        of = self._weights_of
        return tuple((spec, of[p]) for p, spec in enumerate(self._specs))

    @property
    def part_names(self) -> tuple[str, ...]:
        """Returns for each section the name of its part, or of its block without parts.

        A block with one section has no parts.
        """
        names = [block.parts or (block,) for block in self._blocks]
        return tuple(part.name for parts in names for part in parts)

    @property
    def taps(self) -> tuple[str, ...]:
        parts = [part.name for block in self._blocks for part in block.parts]
        return (*parts, *(block.name for block in self._blocks))

    def _tapped(self, taps: Sequence[str]) -> dict[str, int]:
        """Returns for each tap the index of the section whose output it returns."""
        last: dict[str, int] = {}
        for i, name in enumerate(self._section_names):
            part = f"{name}.{self._section_names[:i].count(name)}"
            last |= {name: i, part: i}
        return {name: last[name] for name in self.checked_taps(taps)}

    def _seed(self) -> tf.Tensor | None:
        """Returns a new seed, int32 `[2]`; it differs between calls and replicas."""
        if self._seeds is None:
            return None
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        state = tf.cast(self._seeds.next() % (2**31 - 1), tf.int32)
        return state + tf.cast([replica, 0], tf.int32) * 1_000_003

    def _value(self, position: int) -> tf.Tensor:
        variable = self._weights_of[position]
        if variable.trainable:
            return tf.convert_to_tensor(variable.value)
        # Keras's `trainable` does not reach TensorFlow's variable, so a tape would
        # watch the variable and hold all tensors that are computed from it in memory.
        with record.stop_recording():
            return tf.convert_to_tensor(variable.value)

    def _section_runs(
        self, training: bool, tapped: frozenset[int], start: int = 0
    ) -> list[SectionRun]:
        """Groups the sections from `start` to the end or to the last tap into runs.

        Neighboring sections with the same mode are one run.
        """
        end = max(tapped) + 1 if tapped else len(self._sections)
        modes = {i: self._mode(i, training) for i in range(start, end)}
        groups = [list(group) for _, group in itertools.groupby(modes, modes.get)]
        return [
            self._section_run(
                range(group[0], group[-1] + 1),
                tapped,
                *modes[group[0]],
                return_cut=group[-1] + 1 < end,
            )
            for group in groups
        ]

    def _mode(self, section: int, training: bool) -> tuple[bool, bool, bool]:
        """Returns a section's mode.

        Returns:
            Whether the training graph runs; whether its batch norms then use their
            running statistics; whether any of its variables is trainable.
        """
        trained = any(self._weights_of[p].trainable for p in self._sections[section])
        if not (training and trained):
            return False, False, trained
        norms = self._batch_norms[section]
        if not self.dropout and not (self.batch_norm == "train" and norms):
            return False, False, trained
        if self.batch_norm == "train" or not norms:
            return True, False, trained
        exists = section in self.network.frozen_norm_sections
        return exists, exists, trained

    def _section_run(
        self,
        sections: range,
        tapped: frozenset[int],
        training: bool,
        running_statistics: bool,
        trained: bool,
        return_cut: bool,
    ) -> SectionRun:
        network = self.network
        positions = [p for i in sections for p in self._sections[i]] if trained else []
        outputs = () if tapped else range(len(network.graphs[training].outputs))
        return SectionRun(
            first=sections[0],
            last=sections[-1],
            training=training,
            running_statistics=running_statistics,
            trainable=frozenset(p for p in positions if self._weights_of[p].trainable),
            outputs=tuple(
                i for i in outputs if network.section_of_output(i, training) in sections
            ),
            updates=network.updates(sections, training, running_statistics),
            taps=tuple(sorted(tapped & set(sections))),
            return_cut=return_cut,
        )

    # === Config and file ===

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return config | {
            "variables": [spec.to_json() for spec in self._specs],
            "segments": self._sections,
            "batch_norms": self._batch_norms,
            "inputs": self._inputs_json,
            "outputs": self._outputs_json,
            "digest": self._digest,
            "draws": self._seeds is not None,
            "trained": [p for p, v in self._weights_of.items() if v.trainable],
            "names": list(self._section_names),
        }

    def save_assets(self, inner_path: str) -> None:
        network_files.save_network(self.network, pathlib.Path(inner_path))

    def load_assets(self, inner_path: str) -> None:
        network = network_files.load_network(
            pathlib.Path(inner_path), trust=self.trusted
        )
        self._network = _NETWORKS.setdefault(network.digest, network)


def _spec(tensor: Any) -> tf.TensorSpec:
    return tf.TensorSpec(tensor.shape, keras.backend.standardize_dtype(tensor.dtype))
