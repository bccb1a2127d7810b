"""A server that polls the folder sees complete versions only, whatever is killed."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import tensorflow as tf

from tests.tiny import write_text_encoder
from tlkit.serving.versions import write_version

KILLS = 20  # at least

# Forks a process for each line of input, which exports until it is killed. Forking is
# safe before TensorFlow starts threads, and saves the import.
EXPORTS = """
import os, signal, sys
import tlkit, tensorflow_text
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
source, directory = sys.argv[1:]
for _ in sys.stdin:
    if not os.fork():
        model = tlkit.text_classifier(source, ["good", "bad"])
        print(os.getpid(), flush=True)
        while True:
            tlkit.export(model, directory, check=False, verbose=0)
"""


def served(directory):
    """Returns the versions that a server sees: folders whose names are numbers."""
    return {path for path in directory.iterdir() if path.name.isdigit()}


def test_a_version_is_complete_or_absent(tmp_path):
    seen = []

    def write(folder):
        for name in ("a", "b"):
            (folder / name).write_text(name)
            seen.append(served(tmp_path))

    path = write_version(tmp_path, None, write)
    assert seen == [set(), set()]
    assert sorted(p.name for p in path.iterdir()) == ["a", "b"]
    assert list(tmp_path.iterdir()) == [path]


def test_leftovers_of_a_killed_export_are_removed(tmp_path):
    left = tmp_path / ".tlkit-staging-killed"
    (left / "version").mkdir(parents=True)
    (left / "version" / "saved_model.pb").write_text("half")
    yesterday = time.time() - 25 * 60 * 60
    for each in (left / "version/saved_model.pb", left / "version", left):
        os.utime(each, (yesterday, yesterday))
    path = write_version(tmp_path, None, lambda folder: None)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.long
def test_killed_exports_leave_only_versions_that_load(tmp_path):
    import tensorflow_text  # noqa: F401  the ops of the served model

    source = write_text_encoder(tmp_path / "encoder" / "1")
    directory = tmp_path / "films"
    directory.mkdir()
    moments, loaded = random.Random(0), set()
    inside = set()  # kills in the middle of an export

    def poll():
        for path in served(directory) - loaded:
            answer = tf.saved_model.load(str(path)).signatures["serving_default"]
            assert answer(text=tf.constant(["good film"]))["label"].numpy()[0]
            loaded.add(path)

    command = [sys.executable, "-c", EXPORTS, str(source), str(directory)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as forks:
        kills = 0
        while kills < KILLS or len(loaded) < 3 or len(inside) < 5:
            kills += 1
            print("another", file=forks.stdin, flush=True)
            pid = int(forks.stdout.readline())
            deadline = time.monotonic() + moments.uniform(0, 4)
            while time.monotonic() < deadline:
                poll()
                time.sleep(0.01)
            os.kill(pid, signal.SIGKILL)
            inside.update(directory.glob(f".tlkit-staging-*-{pid}-*"))
            poll()
        forks.stdin.close()
    assert loaded == served(directory)
    # Each export removes the temporary folders of those that were killed before.
    left = set(directory.iterdir()) - loaded
    assert len(left) <= 1 and left <= inside
