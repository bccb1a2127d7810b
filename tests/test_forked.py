"""Programs in forked processes behave as those that `subprocess` starts."""

import signal
import subprocess
import sys
import time

import pytest

from tests import forked

PROGRAM = """
import os, sys, warnings
import tensorflow as tf
print(len(os.listdir("/proc/self/task")) < 3, __name__, sys.argv[1:], os.environ["A"])
print(os.path.basename(os.getcwd()), int(tf.constant(1) + 1))
print("error", file=sys.stderr)
sys.exit(3)
"""


@pytest.mark.parametrize("start", [forked.run, subprocess.run])
def test_a_program_has_its_arguments_environment_and_output(start, tmp_path):
    command = [sys.executable, "-c", PROGRAM, "one", "two"]
    options = {"capture_output": True, "text": True, "cwd": tmp_path}
    done = start(command, env={"A": "b", "TF_CPP_MIN_LOG_LEVEL": "3"}, **options)
    lines = done.stdout.splitlines()
    assert lines[0].endswith("__main__ ['one', 'two'] b")
    assert lines[1] == f"{tmp_path.name} 2"
    assert done.returncode == 3
    assert done.stderr.strip().endswith("error")


def test_nothing_of_tensorflow_has_started_in_a_forked_process(tmp_path):
    code = "import os; print(len(os.listdir('/proc/self/task')))"
    done = forked.run([sys.executable, "-c", code], capture_output=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("start", [forked.Popen, subprocess.Popen])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_a_program(start, number):
    code = "import time, sys; print('here', file=sys.stderr, flush=True); time.sleep(9)"
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with start([sys.executable, "-c", code], **options) as process:
        time.sleep(1)
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)


def test_scripts_modules_and_errors(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys; print(sys.argv[1:]); raise ValueError('no')")
    done = forked.run([sys.executable, script, 1], capture_output=True)
    assert (done.returncode, done.stdout) == (1, "['1']\n")
    assert done.stderr.splitlines()[-1] == "ValueError: no"
    done = forked.run(
        [sys.executable, "-m", "json.tool", "--help"], capture_output=True
    )
    assert done.returncode == 0 and "usage" in done.stdout


def test_the_server_ends_and_starts_again():
    command = [sys.executable, "-c", "import os; print(os.getppid())"]
    servers = []
    for _ in range(2):
        servers.append(int(forked.run(command, capture_output=True).stdout))
        forked.stop()
    assert servers[0] != servers[1]
