"""Names for blocks, read off the names of their variables.

Published encoders number their layers: `transformer/layer_3/…`, `block2/unit_1/…`,
`conv4_block6_…`, `stage2_block0_…`. The first number that all variables of a section
share says which block it belongs to. What comes before the first numbered block is the
stem (or the embeddings), what comes after the last goes by its own name. Names that
say nothing (`v17`, `conv2d_17`) give numbered blocks in the order of depth.
"""

from __future__ import annotations

import collections
import os
import re
from collections.abc import Collection, Sequence

_NUMBERED = re.compile(r"([A-Za-z]+)[/_.\-]*(\d+)")
_DIMENSIONS = re.compile(r"(?<=[a-z])[123][dD](?=[/_]|$)")  # conv2d is a word
_COUNTED = re.compile(r"(?<=[a-z])([123][dD]|normalization)_\d+")  # Keras's own names
_SILENT = {"v", "w", "x", "var", "variable", "weight", "param", "tensor"}


def name_sections(names: Sequence[Sequence[str]]) -> list[str]:
    """One name for each section; neighbors with the same name are one block.

    Args:
        names: For each section, in the order of depth, its variables' names.

    Returns:
        As many block names.
    """
    names = _without_common_scope(names)
    keys = [_key(section) for section in names]
    main = _main_word(keys)
    numbered = [i for i, key in enumerate(keys) if key and key[0] == main]
    above = {name.split("/")[0] for i in numbered for name in names[i]}
    result = []
    for i, (key, section) in enumerate(zip(keys, names, strict=True)):
        if numbered and i < numbered[0]:
            result.append(_entry_name(section))
        elif i in numbered or (numbered and key and i > numbered[-1]):
            result.append(f"{key[0]}{'_' if key[0] == 'layer' else ''}{key[1]}")
        else:
            result.append(_plain_name(section, above))
    return _told_apart(result)


def _main_word(keys: Sequence[tuple[str, int] | None]) -> str | None:
    """The word that numbers the blocks, if most sections have one."""
    words = collections.Counter(key[0] for key in keys if key)
    if 2 * sum(words.values()) < len(keys):
        return None
    for word, _ in words.most_common():
        if _in_one_stretch([key for key in keys if key and key[0] == word]):
            return word
    return None


def _without_common_scope(names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Drops the leading components that all names share, such as `resnet_v2_50/`."""
    flat = [name for section in names for name in section]
    scope = os.path.commonprefix([name.split("/")[:-1] for name in flat])
    return [["/".join(n.split("/")[len(scope) :]) for n in names_] for names_ in names]


def _key(section: Sequence[str]) -> tuple[str, int] | None:
    """The numbered word that all variables of a section begin with, if they do."""
    found = set()
    for name in section:
        match = _NUMBERED.search(_DIMENSIONS.sub("", _COUNTED.sub("", name)))
        says = match and match[1].lower() not in _SILENT
        found.add((match[1], int(match[2])) if says else None)
    (key,) = found if len(found) == 1 else (None,)
    return key


def _in_one_stretch(keys: Sequence[tuple[str, int]]) -> bool:
    """Whether each key's sections stand together, and there are several keys."""
    runs = [key for i, key in enumerate(keys) if i == 0 or keys[i - 1] != key]
    return len(runs) == len(set(runs)) and len(runs) > 1


def _entry_name(section: Sequence[str]) -> str:
    return "embeddings" if any("embed" in name for name in section) else "stem"


def _plain_name(section: Sequence[str], above: Collection[str]) -> str:
    """What the variables' names begin with, below the scope of the numbered blocks."""
    for part, word in (("embed", "embeddings"), ("pooler", "pooler")):
        if any(part in name.replace("pooled", "pooler") for name in section):
            return word
    paths = [name.split("/") for name in section]
    first = [path[1] if path[0] in above and path[1:] else path[0] for path in paths]
    if any(len(path) == 1 for path in paths):
        return ""
    word = re.sub(r"[^A-Za-z0-9]+", "_", os.path.commonprefix(first)).strip("_")
    return word if word and not re.search(r"\d", word) else ""


def _told_apart(names: list[str]) -> list[str]:
    """Gives nameless sections a number, and a name that comes back another one."""
    result: list[str] = []
    seen: set[str] = set()
    for i, name in enumerate(names):
        if not name:
            name = f"block_{i:02d}"
        elif name in seen and result[-1].split(".")[0] != name:
            name = f"{name}.{i}"
        seen.add(name)
        result.append(name)
    return result
