"""Explains in words why XLA could not compile a function."""

import re


def why_not_compiled(error: Exception) -> str | None:
    """Returns the reason for which XLA could not compile a function.

    Args:
        error: The error that the first call of a `tf.function(jit_compile=True)`
            raised.

    Returns:
        The reason, which names the op; `None` if the error has nothing to do with XLA.
    """
    text = str(error)
    if "DT_STRING" in text:
        return "it processes texts (dtype string), which no XLA device supports"
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
        return "it uses a table, or another resource that is not a variable"
    about_xla = "tf2xla" in text or "XLA" in text
    return text.splitlines()[0] if about_xla else None
