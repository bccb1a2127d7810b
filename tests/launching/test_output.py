"""The launcher's output: a slow reader, a full disk, a reader that is gone."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from tlkit.launch import program

ROOT = pathlib.Path(__file__).parents[2]
LINES = 20_000
SCRIPT = f"""
for number in range({LINES}):
    print(number, "x" * 20)
"""


def start(tmp_path, script, **options):
    (tmp_path / "script.py").write_text(script)
    environment = {k: v for k, v in os.environ.items() if k != "TF_CONFIG"}
    return subprocess.Popen(
        program(["--workers", "1", "script.py"]),
        cwd=tmp_path,
        env=environment,
        **({"stderr": subprocess.PIPE} | options),
    )


def test_a_slow_reader_of_a_pipe_that_does_not_block_gets_every_line(tmp_path):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with start(tmp_path, SCRIPT, stdout=writer) as job:
        os.close(writer)
        time.sleep(0.5)  # by now the pipe is full
        with os.fdopen(reader, "rb") as pipe:
            lines = pipe.read().splitlines()
    assert job.returncode == 0
    assert [int(line.split()[1]) for line in lines] == list(range(LINES))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_full_disk_under_the_log_is_reported_once_and_the_job_goes_on(tmp_path):
    script = f"{SCRIPT}\nopen('finished', 'w').close()"
    with open("/dev/full", "wb") as log, start(tmp_path, script, stdout=log) as job:
        errors = job.stderr.read().decode()
    assert job.returncode == 0
    assert (tmp_path / "finished").exists()
    assert errors.count("stdout takes none: No space left on device") == 1


def test_a_reader_that_is_gone_ends_the_job(tmp_path):
    script = "import itertools\nfor number in itertools.count():\n    print(number)"
    with start(tmp_path, script, stdout=subprocess.PIPE) as job:
        job.stdout.readline()
        job.stdout.close()
        job.stderr.read()
    assert job.returncode == 141


def test_the_launcher_does_not_import_tensorflow():
    # `-X importtime` of the first process; the launcher has no options of Python.
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tlkit.launch", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout.startswith("usage: python -m tlkit.launch")
    assert "tlkit.launch" in done.stderr and "tensorflow" not in done.stderr
