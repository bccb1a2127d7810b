"""`python -m tlkit.launch --workers N script.py`: a job of several workers."""

from __future__ import annotations

import os
import pathlib
import sys

# Stands in for the package, whose own __init__ imports TensorFlow.
_ALONE = """
import sys, types
package = types.ModuleType("tlkit")
package.__path__ = [sys.argv.pop(1)]
sys.modules["tlkit"] = package
from tlkit.launching.command import main
sys.exit(main())
"""


def main() -> None:
    """Becomes the launcher, in a new program that has not imported TensorFlow.

    Before it runs a module, Python imports the package around it. TensorFlow then holds
    some 400 MB and threads, which a launcher must not fork.
    """
    folder = str(pathlib.Path(__file__).parent)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(
        sys.executable, [sys.executable, "-P", "-c", _ALONE, folder, *sys.argv[1:]]
    )


if __name__ == "__main__":
    main()
