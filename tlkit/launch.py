"""`python -m tlkit.launch --workers N script.py`: a job of several workers."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

# Stands in for the package, whose own __init__ imports TensorFlow.
_ALONE = """
import sys, types
package = types.ModuleType("tlkit")
package.__path__ = [sys.argv.pop(1)]
sys.modules["tlkit"] = package
from tlkit.launching.command import main
sys.exit(main())
"""


def program(arguments: Sequence[str]) -> list[str]:
    """The launcher as a program of its own, which does not import TensorFlow.

    Args:
        arguments: What stands behind `python -m tlkit.launch`.

    Returns:
        What to execute.
    """
    folder = str(pathlib.Path(__file__).parent)
    return [sys.executable, "-P", "-c", _ALONE, folder, *arguments]


def main() -> None:
    """Becomes that program.

    Before it runs a module, Python imports the package around it. TensorFlow then holds
    some 400 MB and threads, which a launcher must not fork.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, program(sys.argv[1:]))


if __name__ == "__main__":
    main()
