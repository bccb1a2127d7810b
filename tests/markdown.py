"""Reads the code blocks of the README."""

import pathlib
import re

README = pathlib.Path(__file__).parent.parent / "README.md"


def blocks(language):
    """Returns the fenced blocks of a language, in order."""
    text = README.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def replaced(code, replacements):
    """Returns the code with texts replaced, each of which must occur."""
    for old, new in replacements.items():
        assert old in code, f"{old!r} is no longer in the code"
        code = code.replace(old, new)
    return code
