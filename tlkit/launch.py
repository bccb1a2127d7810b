"""`python -m tlkit.launch --workers N script.py`: starts a job of several workers.

Tested in tests/test_launch.py.
"""

import os
import pathlib
import sys
from collections.abc import Sequence

# Puts an empty module in place of the package, whose `__init__` imports TensorFlow.
_ALONE = """
import sys, types
package = types.ModuleType("tlkit")
package.__path__ = [sys.argv.pop(1)]
sys.modules["tlkit"] = package
from tlkit.launching.command import main
sys.exit(main())
"""


def program(arguments: Sequence[str]) -> list[str]:
    """Returns the command of a launcher process that does not import TensorFlow.

    Args:
        arguments: The arguments after `python -m tlkit.launch`.
    """
    folder = str(pathlib.Path(__file__).parent)
    return [sys.executable, "-P", "-c", _ALONE, folder, *arguments]


def main() -> None:
    """Replaces this process by the launcher.

    TensorFlow takes 400 MB and starts threads, which a launcher must not fork. For
    `python -m tlkit.launch`, `tlkit/__init__.py` calls this function before it imports
    TensorFlow.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, program(sys.argv[1:]))


if __name__ == "__main__":
    main()
