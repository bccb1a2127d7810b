"""What XLA makes of a step: what it was given, or why it could not compile it."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class Lowered:
    """What a compiled function is to XLA, before XLA changes anything.

    Attributes:
        constants: How many arguments XLA takes for constants. With any, it compiles
            anew for each batch, although TensorFlow traces the function only once.
        dynamic: Shapes with a size that only the run decides, such as `"f32[<=4,3]"`.
    """

    constants: int
    dynamic: tuple[str, ...]


def lowered(
    step: tf.types.experimental.PolymorphicFunction, *arguments: Any
) -> Lowered:
    """Looks at what XLA is given of a function, without compiling it.

    Args:
        step: A `tf.function(jit_compile=True)`.
        *arguments: What it is called with.

    Returns:
        What stands in the HLO.

    Raises:
        ValueError: It cannot be compiled; `why_not_compiled` says why.
    """
    text = step.experimental_get_compiler_ir(*arguments)(stage="hlo")
    given = len(step.get_concrete_function(*arguments).inputs)  # captured ones, too
    entry = text[text.index("\nENTRY") :]
    parameters = re.findall(r" parameter\(\d+\)", entry)
    dynamic = re.findall(r"\w+\[[^\]]*<=[^\]]*\]", text)
    return Lowered(given - len(parameters), tuple(sorted(set(dynamic))))


def why_not_compiled(error: Exception) -> str | None:
    """Says in words what XLA could not compile.

    Args:
        error: What the first call of a `tf.function(jit_compile=True)`, or `lowered`,
            raised.

    Returns:
        The reason, which names the op; `None` if the error has nothing to do with XLA.
    """
    text = str(error)
    if "DT_STRING" in text:
        return "it works on texts (dtype string), which no XLA device holds"
    missing = re.findall(r"(\w+) \(No registered '", text)
    if missing:
        names = ", ".join(f"`{op}`" for op in sorted(set(missing)))
        return f"XLA has no op {names}"
    size = re.search(r"node `?(\S+?)`? with op (\w+) must be a compile-time", text)
    if size:
        name, op = size.groups()
        return (
            f"a size at the op `{op}` ({name}) depends on values, not on shapes alone"
        )
    if "fixed tensor list size" in text:
        return "a loop whose length is not fixed (op `While`) cannot be differentiated"
    if "xla_launch_util" in text and "is_initialized" in text:
        return "it uses a table, or another resource that is no variable"
    about_xla = "tf2xla" in text or "XLA" in text
    return text.splitlines()[0] if about_xla else None
