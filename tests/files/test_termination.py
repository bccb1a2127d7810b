"""SIGTERM removes temporary folders and ends child processes."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests import forked
from tlkit.files import exit_on_sigterm

ROOT = pathlib.Path(__file__).parents[2]
# A parity check, whose process loads TensorFlow for seconds.
CHECKING = """
import pathlib, sys
from tlkit.files import staging
from tlkit.serving.parity_check import predict_standalone
with staging(pathlib.Path(sys.argv[1])) as folder:
    predict_standalone(folder, {})
"""


def test_sigterm_ends_a_parity_check_and_leaves_nothing(tmp_path):
    export = tmp_path / "exports" / "1"
    job = forked.Popen(
        [sys.executable, "-c", CHECKING, export],
        env=os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        stderr=subprocess.PIPE,
    )
    with job:
        while not (children := psutil.Process(job.pid).children()):
            assert job.poll() is None, job.stderr.read()
            time.sleep(0.02)
        job.terminate()
        job.wait(timeout=100)
    assert job.returncode == 128 + signal.SIGTERM, job.stderr.read()
    psutil.wait_procs(children, timeout=100)
    assert not any(child.is_running() for child in children)
    assert not list(export.parent.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["exports"]


def test_a_handler_of_the_user_is_left_alone():
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        with exit_on_sigterm():
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(SystemExit), exit_on_sigterm(), exit_on_sigterm():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
