"""Writes and reads a file that names the block of each variable of an encoder.

Tested in tests/serving/test_publishing.py.
"""

import collections
import itertools
import json
import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .encoder import Block
from .network.network_files import VariableSpec

# Path in a SavedModel. TensorFlow and TF Serving ignore the folder `assets.extra`.
BLOCKS_FILE = "assets.extra/tlkit_blocks.json"


def write_block_map(
    folder: pathlib.Path, blocks: Sequence[Block], names: Mapping[int, str]
) -> None:
    """Writes the blocks and their parts, with the names of their variables, as JSON.

    Args:
        folder: The folder of the SavedModel.
        blocks: The blocks in the order of depth.
        names: The name of each variable, by the `id` of the Keras variable.
    """

    def entry(block: Block) -> dict[str, Any]:
        return {
            "name": block.name,
            "variables": [names[id(v)] for v in block.variables],
        }

    entries = [
        entry(block) | {"parts": [entry(part) for part in block.parts]}
        for block in blocks
    ]
    path = folder / BLOCKS_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"blocks": entries}, indent=1) + "\n", encoding="utf-8")


def read_block_map(folder: pathlib.Path) -> dict[str, str]:
    """Returns the block name for each variable name; empty without a valid file."""
    try:
        text = (pathlib.Path(folder) / BLOCKS_FILE).read_text(encoding="utf-8")
        entries = [
            (name, str(entry["name"]))
            for entry in json.loads(text)["blocks"]
            for name in entry["variables"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    block_of = dict(entries)
    plain = all(re.fullmatch(r"\w[\w.-]*", block) for block in block_of.values())
    # If variables of two blocks have the same name, the map is ambiguous.
    return block_of if plain and len(block_of) == len(set(entries)) else {}


def names_by_map(
    sections: Sequence[Sequence[VariableSpec]], block_of: Mapping[str, str]
) -> list[str] | None:
    """Returns the name of each section's block; `None` if the map does not fit.

    Args:
        sections: The variables of each section, in the order of depth.
        block_of: The block of each variable, by their names.
    """
    names = []
    for section in sections:
        # The last norm of a section may belong to the next block, so the block with
        # most of the section's values names the section.
        sizes: collections.Counter[str] = collections.Counter()
        for variable in section:
            if variable.name not in block_of:
                return None
            sizes[block_of[variable.name]] += math.prod(variable.shape)
        if not sizes:
            return None
        names.append(sizes.most_common(1)[0][0])
    runs = [name for name, _ in itertools.groupby(names)]
    return names if len(runs) == len(set(runs)) else None
