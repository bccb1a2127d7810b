"""An encoder over an opened SavedModel: its weights are Keras weights of its own."""

from __future__ import annotations

import itertools
import pathlib
import re
import types
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

# Private: a variable cannot be read past a tape that one does not have at hand.
# tests/encoders/test_opened_encoder.py notices when it changes.
from tensorflow.python.eager import record

from ..errors import EncoderError
from .block_map import names_by_map
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
    """An encoder whose network was opened; made by `tlkit.load_encoder`.

    Args:
        variables: What each variable is, in the network's order.
        segments: For each section, the positions of its variables.
        batch_norms: For each section, how many batch norms it holds.
        inputs: The nest of input specs, as JSON.
        outputs: The nest of output specs, as JSON.
        digest: Digest of the network, by which the process finds it.
        draws: Whether training draws random numbers.
        trained: Positions of the variables that are trained; all that may be, if
            `None`.
        names: For each section, the name of its block; read off the names of the
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
        # `None` while a `.keras` file is loaded, whose assets come after the config.
        self._network = _NETWORKS.get(digest)
        if names is None:
            names = name_sections([self._names(s) for s in self._sections])
        self._section_names = list(names)
        # TensorFlow would track a dict, and refuses to export one with numbers as keys.
        self._weights_of = types.MappingProxyType(self._make_weights(trained))
        self._blocks = self._make_blocks()
        self._seeds = keras.random.SeedGenerator(name="seeds") if draws else None
        self.built = True

    # === Weights and blocks ===

    def _make_weights(self, trained: Sequence[int] | None) -> dict[int, keras.Variable]:
        names = self._section_names
        inside = set(itertools.chain.from_iterable(self._sections))
        unused = [p for p in range(len(self._specs)) if p not in inside]
        groups = itertools.groupby(
            zip(names, self._sections, strict=True), lambda x: x[0]
        )
        holders = [(name, [p for _, s in pairs for p in s]) for name, pairs in groups]
        # A layer for each block: weights then have the block in their path.
        weights: dict[int, keras.Variable] = {}
        self.layers = [
            self._holder(name, positions, weights)
            for name, positions in [*holders, ("unused", unused)]
            if positions
        ]
        wanted = range(len(self._specs)) if trained is None else set(trained)
        for position, variable in weights.items():
            if self._specs[position].learnable:
                variable.trainable = position in wanted and position in inside
        return weights

    def _names(self, positions: Sequence[int]) -> list[str]:
        return [self._specs[position].name for position in positions]

    def _holder(
        self, name: str, positions: Sequence[int], weights: dict[int, keras.Variable]
    ) -> keras.layers.Layer:
        holder = keras.layers.Layer(name=name, dtype=self.dtype_policy, autocast=False)
        taken: set[str] = set()
        for position in positions:
            spec = self._specs[position]
            # Keras allows no "/" in a variable's name.
            plain = re.sub(r"[^A-Za-z0-9_.]+", "_", spec.name).strip("_")
            plain = plain if plain not in taken else f"{plain}_{position}"
            taken.add(plain)
            weights[position] = holder.add_weight(
                name=plain,
                shape=tuple(spec.shape),
                dtype=spec.dtype,
                initializer="zeros",
                trainable=spec.learnable,
                autocast=False,
            )
        holder.built = True
        return holder

    def _make_blocks(self) -> tuple[Block, ...]:
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
            EncoderError: The network was freed with the encoders that used it, so this
                copy of their configuration cannot run.
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
        section_runs = self._section_runs(
            bool(training), frozenset(tapped.values()), start
        )
        seed = self._seed() if any(run.training for run in section_runs) else None
        outputs: dict[int, tf.Tensor] = {}
        tensors: dict[int, tf.Tensor] = {}
        for section_run in section_runs:
            found = self.network.run(section_run, cut, flat, self._value, seed)
            cut = found.cut
            outputs |= found.outputs
            tensors |= found.taps
            for position, value in found.updates.items():
                self._weights_of[position].assign(value)
        self._add_losses()
        if taps is not None:
            return {name: tensors[section] for name, section in tapped.items()}
        ordered = [outputs[i] for i in range(len(outputs))]
        return tf.nest.pack_sequence_as(self.outputs_spec, ordered)

    def run_to(self, inputs: Any, cuts: Sequence[int]) -> dict[int, tf.Tensor]:
        """Tensors at the beginnings of some sections, as in inference."""
        flat = cast_inputs(self.inputs_spec, inputs)
        found, cut = {}, None
        for first, end in itertools.pairwise([0, *cuts]):
            section_run = SectionRun(first, end - 1)
            cut = self.network.run(section_run, cut, flat, self._value).cut
            found[end] = cut
        return found

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
        """The variables of each section: of each part between two cuts."""
        of = self._weights_of
        return tuple(tuple(of[p] for p in section) for section in self._sections)

    @property
    def named_variables(self) -> tuple[tuple[Any, keras.Variable], ...]:
        """What each variable was in the SavedModel, and it, in the network's order."""
        of = self._weights_of
        return tuple((spec, of[p]) for p, spec in enumerate(self._specs))

    @property
    def part_names(self) -> tuple[str, ...]:
        """Name of the part, or of the block without parts, that each section is."""
        names = [block.parts or (block,) for block in self._blocks]
        return tuple(part.name for parts in names for part in parts)

    @property
    def taps(self) -> tuple[str, ...]:
        parts = [part.name for block in self._blocks for part in block.parts]
        return (*parts, *(block.name for block in self._blocks))

    def _tapped(self, taps: Sequence[str]) -> dict[str, int]:
        """The section behind which each tap is."""
        last: dict[str, int] = {}
        for i, name in enumerate(self._section_names):
            part = f"{name}.{self._section_names[:i].count(name)}"
            last |= {name: i, part: i}
        return {name: last[name] for name in self.checked_taps(taps)}

    def _seed(self) -> tf.Tensor | None:
        """The seed of this call, another one on each replica."""
        if self._seeds is None:
            return None
        context = tf.distribute.get_replica_context()
        replica = 0 if context is None else context.replica_id_in_sync_group
        state = tf.cast(self._seeds.next() % (2**31 - 1), tf.int32)
        return state + tf.cast([replica, 0], tf.int32) * 1_000_003

    def _add_losses(self) -> None:
        trained = frozenset(p for p, v in self._weights_of.items() if v.trainable)
        for loss in self.network.regularization(self._value, trained):
            self.add_loss(loss)

    def _value(self, position: int) -> tf.Tensor:
        variable = self._weights_of[position]
        if variable.trainable:
            return tf.convert_to_tensor(variable.value)
        # Keras's `trainable` does not reach TensorFlow's variable. A tape would watch
        # it, and keep everything that is computed with it for a gradient.
        with record.stop_recording():
            return tf.convert_to_tensor(variable.value)

    def _section_runs(
        self, training: bool, tapped: frozenset[int], start: int = 0
    ) -> list[SectionRun]:
        """The network as far as needed, cut only where the way it runs changes."""
        count = max(tapped) + 1 if tapped else len(self._sections)
        modes = {i: self._mode(i, training) for i in range(start, count)}
        runs = [list(run) for _, run in itertools.groupby(modes, modes.get)]
        return [
            self._section_run(
                run, tapped, *modes[run[0]], return_cut=run[-1] + 1 < count
            )
            for run in runs
        ]

    def _mode(self, section: int, training: bool) -> tuple[bool, bool, bool]:
        """How a section runs.

        Whether as in training, whether its batch norms keep to their running
        statistics then, and whether any of it is trained.
        """
        trained = any(self._weights_of[p].trainable for p in self._sections[section])
        if not (training and trained):
            return False, False, trained
        norms = self._batch_norms[section]
        if not self.dropout and not (self.batch_norm == "train" and norms):
            return False, False, trained
        if self.batch_norm == "train" or not norms:
            return True, False, trained
        useful = section in self.network.frozen_norm_sections
        return useful, useful, trained

    def _section_run(
        self,
        sections: Sequence[int],
        tapped: frozenset[int],
        training: bool,
        running: bool,
        trained: bool,
        return_cut: bool,
    ) -> SectionRun:
        network = self.network
        first, last = sections[0], sections[-1]
        count = len(network.graphs[training].outputs)
        inside = range(first, last + 1)
        positions = [p for i in inside for p in self._sections[i]]
        trainable_positions = [p for p in positions if self._weights_of[p].trainable]
        return SectionRun(
            first=first,
            last=last,
            training=training,
            running_statistics=running,
            trainable=frozenset(trainable_positions if trained else ()),
            outputs=tuple(
                i
                for i in range(count)
                if not tapped and network.section_of_output(i, training) in inside
            ),
            updates=network.updates(inside, training, running),
            taps=tuple(sorted(tapped & set(inside))),
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


def opened_encoder(
    network: Network,
    variables: Sequence[network_files.VariableSpec],
    values: Sequence[tf.Tensor],
    *,
    inputs: Any,
    outputs: Any,
    block_of: Mapping[str, str] | None = None,
    **kwargs,
) -> OpenedEncoder:
    """Makes an encoder of a network and fills its weights.

    Args:
        network: The opened network.
        variables: What each variable is, by position.
        values: The value of each variable, by position.
        inputs: Nest of `tf.TensorSpec`.
        outputs: Nest of `tf.TensorSpec`.
        block_of: The block of each variable, by their names, where that is known.
        **kwargs: Arguments of `Encoder`.

    Returns:
        The encoder.
    """
    network = _NETWORKS.setdefault(network.digest, network)
    sections = [sorted(section.variables) for section in network.sections]
    inside = [[variables[p] for p in section] for section in sections]
    encoder = OpenedEncoder(
        variables=[variable.to_json() for variable in variables],
        segments=sections,
        names=names_by_map(inside, block_of) if block_of else None,
        batch_norms=[network.batch_norms(i) for i in range(len(network.sections))],
        inputs=network_files.specs_to_json(inputs),
        outputs=network_files.specs_to_json(outputs),
        digest=network.digest,
        draws=network.needs_seed,
        **kwargs,
    )
    for position, value in enumerate(values):
        encoder._weights_of[position].assign(value)
    return encoder
