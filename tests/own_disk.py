"""A small file system of its own for a process, so that a full disk is a real one."""

import pathlib
import shutil
import subprocess

import pytest


def through_own_disk(disk: pathlib.Path, *, then: str, options: str = "size=1m"):
    """What a command is to be run through, so that it finds a file system at `disk`.

    The test is skipped where none can be mounted.

    Args:
        disk: A folder that is not there yet.
        then: A shell command that is run behind it, before the file system is gone.
        options: How it is mounted.
    """
    disk.mkdir()
    mount = f"mount -t tmpfs -o {options} none {disk}"
    through = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.call([*through, mount]):
        pytest.skip("no file system can be mounted here")
    return [*through, f'{mount} && "$0" "$@" && {then}']
