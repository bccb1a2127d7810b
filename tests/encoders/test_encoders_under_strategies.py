"""Encoders under a strategy: two devices, in a process of its own."""

import os
import pathlib
import sys

from tests import forked


def test_two_devices(written):
    folders = [str(written(name)) for name in ("tf1", "keras2", "while")]
    command = [sys.executable, "-m", "tests.encoders.on_two_devices", *folders]
    root = pathlib.Path(__file__).parents[2]
    silent = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = forked.run(command, capture_output=True, cwd=root, env=silent)
    assert done.stdout.strip() == "fine", done.stderr[-3000:]
