"""Gives a process a small file system of its own, to test with a full disk."""

import pathlib
import shutil
import subprocess

import pytest


def through_own_disk(disk: pathlib.Path, *, then: str, options: str = "size=1m"):
    """Returns a command prefix that mounts a file system at `disk`.

    Skips the test if none can be mounted.

    Args:
        disk: A folder that does not exist yet.
        then: A shell command that runs after the command, with the file system.
        options: Options of `mount`.
    """
    disk.mkdir()
    mount = f"mount -t tmpfs -o {options} none {disk}"
    through = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.call([*through, mount]):
        pytest.skip("no file system can be mounted here")
    return [*through, f'{mount} && "$0" "$@" && {then}']
