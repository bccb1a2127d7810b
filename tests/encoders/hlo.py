"""Reads the HLO of a function: what XLA compiles, before it optimizes it."""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Hlo:
    """Properties of a function's HLO.

    Attributes:
        constants: Number of arguments that XLA takes for constants. With any, it
            compiles for each batch, although TensorFlow traces the function once.
        dynamic: Shapes with a size that is known only at run time: `"f32[<=4,3]"`.
    """

    constants: int
    dynamic: tuple[str, ...]


def read_hlo(step, *arguments):
    """Returns the `Hlo` of a `tf.function(jit_compile=True)` for some arguments.

    Raises:
        ValueError: XLA cannot compile it; `why_not_compiled` names the reason.
    """
    text = step.experimental_get_compiler_ir(*arguments)(stage="hlo")
    inputs = len(step.get_concrete_function(*arguments).inputs)  # captured ones, too
    parameters = re.findall(r" parameter\(\d+\)", text[text.index("\nENTRY") :])
    dynamic = re.findall(r"\w+\[[^\]]*<=[^\]]*\]", text)
    return Hlo(inputs - len(parameters), tuple(sorted(set(dynamic))))
