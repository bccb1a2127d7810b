"""Divides the GPUs of this machine among local workers.

Tested in tests/test_launch.py.
"""

import pathlib
import shutil
import subprocess
from collections.abc import Mapping

from ..errors import TrainingError

_DRIVER = pathlib.Path("/proc/driver/nvidia/gpus")


def assign_gpus(environment: Mapping[str, str], count: int) -> list[dict[str, str]]:
    """Assigns different GPUs to the workers: a process reserves all memory of a GPU.

    Args:
        environment: The environment of the process.
        count: The number of workers.

    Returns:
        For each worker, the variables to set; empty if there is no GPU.

    Raises:
        TrainingError: There are GPUs, but fewer than workers.
    """
    devices = _visible(environment)
    if not devices:
        return [{}] * count
    each = len(devices) // count
    if not each:
        raise TrainingError(
            f"{count} workers need a GPU each, and there is {len(devices)}: "
            f"{', '.join(devices)}. Type --workers {len(devices)}, or put "
            "CUDA_VISIBLE_DEVICES=-1 before the command to train on the CPU."
        )
    # Workers with different numbers of GPUs cannot train together.
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(devices[k * each : (k + 1) * each])}
        for k in range(count)
    ]


def _visible(environment: Mapping[str, str]) -> list[str]:
    """Returns the names of the GPUs that a process can use."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA ignores everything after the first invalid name.
        stop = next((k for k, n in enumerate(names) if n in ("", "-1")), len(names))
        return names[:stop]
    if _DRIVER.is_dir():
        return [str(k) for k in range(len(list(_DRIVER.iterdir())))]
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
        return [str(k) for k in range(len(lines))]
    return []
