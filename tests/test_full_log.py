"""A log that cannot be written does not end the work that it is about."""

import os
import sys

import pytest

from tlkit.progress import print_line, progress


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_lines_for_a_full_disk_are_lost(monkeypatch):
    log = open("/dev/full", "w")
    monkeypatch.setattr(sys, "stderr", log)
    monkeypatch.setattr("tlkit.progress._SECONDS", 0.0)
    print_line("first")
    assert list(progress(range(3), total=3, what="counting")) == [0, 1, 2]
    with pytest.raises(OSError, match="No space left"):
        log.close()  # what is buffered


def test_a_reader_that_is_gone_is_an_error(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    log = os.fdopen(writer, "w")
    monkeypatch.setattr(sys, "stderr", log)
    with pytest.raises(BrokenPipeError):
        print_line("first")
    with pytest.raises(BrokenPipeError):
        log.close()
