"""Names of blocks, derived from the names of their variables.

Published encoders number their layers: `transformer/layer_3/…`, `block2/unit_1/…`,
`conv4_block6_…`, `stage2_block0_…`. The first number that all variables of a section
share says which block the section belongs to. Sections before the first numbered block
are the stem (or the embeddings). Sections after the last one get the common prefix of
their variables' names. Variable names without meaning (`v17`, `conv2d_17`) give
numbered blocks in order of depth.
"""

import collections
import os
import re
from collections.abc import Collection, Sequence

_NUMBERED = re.compile(r"([A-Za-z]+)[/_.\-]*(\d+)")
_DIMENSIONS = re.compile(r"(?<=[a-z])[123][dD](?=[/_]|$)")  # the 2d of conv2d
_KERAS_COUNTER = re.compile(r"(?<=[a-z])([123][dD]|normalization)_\d+")
_MEANINGLESS = {"v", "w", "x", "var", "variable", "weight", "param", "tensor"}


def name_sections(names: Sequence[Sequence[str]]) -> list[str]:
    """Names the block of each section; neighbors with the same name form one block.

    Args:
        names: For each section, in order of depth, the names of its variables.

    Returns:
        A block name for each section.

    Example:

    >>> name_sections([["conv1/kernel"], ["b1/u1/kernel", "b1/u1/bias"], ["b2/u1/w"]])
    ['stem', 'b1', 'b2']
    >>> name_sections([["embed/table"], ["layer_0/kernel"], ["layer_1/kernel"]])
    ['embeddings', 'layer_0', 'layer_1']
    """
    names = _without_common_scope(names)
    keys = [_key(section) for section in names]
    word = _numbering_word(keys)
    numbered = [i for i, key in enumerate(keys) if key and key[0] == word]
    scopes = {name.split("/")[0] for i in numbered for name in names[i]}
    block_names = []
    for i, (key, section) in enumerate(zip(keys, names, strict=True)):
        if numbered and i < numbered[0]:
            block_names.append(_entry_name(section))
        elif i in numbered or (numbered and key and i > numbered[-1]):
            separator = "_" if key[0] == "layer" else ""
            block_names.append(f"{key[0]}{separator}{key[1]}")
        else:
            block_names.append(_common_name(section, scopes))
    return _made_unique(block_names)


def _without_common_scope(names: Sequence[Sequence[str]]) -> list[list[str]]:
    """Removes the leading scopes that all names share, such as `resnet_v2_50/`."""
    flat = [name for section in names for name in section]
    scope = os.path.commonprefix([name.split("/")[:-1] for name in flat])
    return [
        ["/".join(n.split("/")[len(scope) :]) for n in section] for section in names
    ]


def _key(section: Sequence[str]) -> tuple[str, int] | None:
    """Returns the numbered word that all names share, such as `("layer", 3)`."""
    keys = set()
    for name in section:
        match = _NUMBERED.search(_DIMENSIONS.sub("", _KERAS_COUNTER.sub("", name)))
        meaningful = match and match[1].lower() not in _MEANINGLESS
        keys.add((match[1], int(match[2])) if meaningful else None)
    return keys.pop() if len(keys) == 1 else None


def _numbering_word(keys: Sequence[tuple[str, int] | None]) -> str | None:
    """Returns the word that numbers the blocks, such as `"layer"`.

    Returns `None` if fewer than half of the sections have a number.
    """
    words = collections.Counter(key[0] for key in keys if key)
    if 2 * sum(words.values()) < len(keys):
        return None
    for word, _ in words.most_common():
        if _are_contiguous([key for key in keys if key and key[0] == word]):
            return word
    return None


def _are_contiguous(keys: Sequence[tuple[str, int]]) -> bool:
    """Tells whether there are several different keys, and equal keys are neighbors."""
    runs = [key for i, key in enumerate(keys) if i == 0 or keys[i - 1] != key]
    return len(runs) == len(set(runs)) and len(runs) > 1


def _entry_name(section: Sequence[str]) -> str:
    return "embeddings" if any("embed" in name for name in section) else "stem"


def _common_name(section: Sequence[str], scopes: Collection[str]) -> str:
    """Returns the common beginning of the variables' names; `""` if it has no meaning.

    Args:
        section: The variables' names.
        scopes: Scopes of the numbered blocks, which are skipped.
    """
    for part, word in (("embed", "embeddings"), ("pooler", "pooler")):
        if any(part in name.replace("pooled", "pooler") for name in section):
            return word
    paths = [name.split("/") for name in section]
    if any(len(path) == 1 for path in paths):
        return ""
    first = [path[1] if path[0] in scopes and path[1:] else path[0] for path in paths]
    word = re.sub(r"[^A-Za-z0-9]+", "_", os.path.commonprefix(first)).strip("_")
    return word if word and not re.search(r"\d", word) else ""


def _made_unique(names: list[str]) -> list[str]:
    """Numbers unnamed sections; a name that occurs again after others gets a suffix."""
    unique: list[str] = []
    seen: set[str] = set()
    for i, name in enumerate(names):
        if not name:
            name = f"block_{i:02d}"
        elif name in seen and unique[-1].split(".")[0] != name:
            name = f"{name}.{i}"
        seen.add(name)
        unique.append(name)
    return unique
