"""Devices: the GPUs of this machine, shared out to local workers."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
from collections.abc import Mapping

from ..errors import TrainingError

_DRIVER = pathlib.Path("/proc/driver/nvidia/gpus")


def shares(environment: Mapping[str, str], count: int) -> list[dict[str, str]]:
    """Gives each worker GPUs of its own: two cannot hold the memory of one.

    Args:
        environment: The environment of the process.
        count: How many workers.

    Returns:
        Variables to set, for each worker; none where there is no GPU.

    Raises:
        TrainingError: There are GPUs, and fewer than workers.
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
    # Workers with unequal numbers of devices do not train together.
    return [
        {"CUDA_VISIBLE_DEVICES": ",".join(devices[k * each : (k + 1) * each])}
        for k in range(count)
    ]


def _visible(environment: Mapping[str, str]) -> list[str]:
    """The names of the GPUs that a process sees."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        names = [name.strip() for name in chosen.split(",")]
        # CUDA ends the list at the first name that is none.
        stop = next((k for k, n in enumerate(names) if n in ("", "-1")), len(names))
        return names[:stop]
    if _DRIVER.is_dir():
        return [str(k) for k in range(len(list(_DRIVER.iterdir())))]
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("GPU ")]
        return [str(k) for k in range(len(lines))]
    return []
