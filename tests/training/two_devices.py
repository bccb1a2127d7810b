"""Runs code in a process with two logical CPUs, created before TensorFlow starts."""

import json
import os
import pathlib
import subprocess
import sys

from tests import forked

HEAD = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
"""


def start(code: str, *, head: str = HEAD, **environment: str) -> forked.Popen:
    """Starts a process, whose last line of output has to be JSON."""
    silent = {"TF_CPP_MIN_LOG_LEVEL": "3"}
    return forked.Popen(
        [sys.executable, "-W", "error::UserWarning", "-c", head + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(__file__).parents[2],
        env=os.environ | silent | environment,
    )


def result_of(process: forked.Popen):
    """Returns the JSON value in the last line that a process printed."""
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    return json.loads(printed.splitlines()[-1])
