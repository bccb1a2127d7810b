"""Names for variables that are the same in every process."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras

_NUMBER = re.compile(r"_\d+$")


def stable_names(variables: Sequence[keras.Variable]) -> list[str]:
    """One name for each variable, all different.

    Keras numbers what has no name of its own by what was built before in the process:
    `dense_7/kernel` may be `dense/kernel` in the next one. Here the numbers are counted
    from the first variable on, as Keras would in a fresh process. Paths need not differ
    in Keras; the second of the same gets `#2`.

    Args:
        variables: In an order that does not change, such as that of `model.weights`.

    Returns:
        Paths such as `"sequential/dense_1/kernel"`.
    """
    seen: dict[tuple[str, str], list[str]] = {}
    names = []
    for variable in variables:
        name = ""
        for part in variable.path.split("/"):
            base = without_number(part)
            known = seen.setdefault((name, base), [])
            if part not in known:
                known.append(part)
            place = known.index(part)
            name += ("/" if name else "") + base + (f"_{place}" if place else "")
        names.append(name)
    return told_apart(names)


def without_number(name: str) -> str:
    """A name without the number that Keras may have put behind it."""
    return _NUMBER.sub("", name)


def told_apart(names: Sequence[str]) -> list[str]:
    """The names, with `#2` and so on behind those that came before."""
    counts: dict[str, int] = {}
    result = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        result.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return result
