"""Names of variables that are the same in every process.

Tested in tests/training/checkpoints/test_snapshot.py.
"""

import re
from collections.abc import Sequence

import keras

_NUMBER = re.compile(r"_\d+$")


def stable_names(variables: Sequence[keras.Variable]) -> list[str]:
    """Returns a unique name for each variable.

    Keras numbers objects without a name across the process: `dense_7/kernel` may be
    `dense/kernel` in the next process. Here only the given variables are numbered. If
    two variables have the same path in Keras, the second one gets `#2`.

    Args:
        variables: In a constant order, such as that of `model.weights`.

    Returns:
        Names such as `"sequential/dense_1/kernel"`.
    """
    numbered: dict[tuple[str, str], list[str]] = {}
    names = []
    for variable in variables:
        name = ""
        for part in variable.path.split("/"):
            base = without_number(part)
            siblings = numbered.setdefault((name, base), [])
            if part not in siblings:
                siblings.append(part)
            index = siblings.index(part)
            name += ("/" if name else "") + base + (f"_{index}" if index else "")
        names.append(name)
    return unique_names(names)


def without_number(name: str) -> str:
    """Removes the number that Keras may have added to a name."""
    return _NUMBER.sub("", name)


def unique_names(names: Sequence[str]) -> list[str]:
    """Adds `#2` and so on to names that occurred before."""
    counts: dict[str, int] = {}
    unique = []
    for name in names:
        counts[name] = counts.get(name, 0) + 1
        unique.append(name if counts[name] == 1 else f"{name}#{counts[name]}")
    return unique
