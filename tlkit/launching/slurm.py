"""The cluster of a SLURM job step that `srun` started.

Tested in tests/test_launch.py.
"""

import itertools
import re
import zlib
from collections.abc import Iterator, Mapping

from ..errors import TrainingError
from .cluster import PORTS

_NEEDED = (
    "SLURM_PROCID",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_TASKS_PER_NODE",
)


def slurm_workers(environment: Mapping[str, str]) -> tuple[list[str], int] | None:
    """Returns the workers of the job step that this process belongs to.

    The ports are computed from the job's number, so every task computes the same ones.

    Args:
        environment: The environment of the process.

    Returns:
        Host and port of each worker, one for each task, and the index of this one;
        `None` outside a job step, or if the step has one task.

    Raises:
        TrainingError: The tasks are not distributed in blocks.
    """
    if not all(environment.get(name) for name in _NEEDED):
        return None
    count = int(environment["SLURM_STEP_NUM_TASKS"])
    if count < 2:
        return None
    hosts = expand_hosts(environment["SLURM_STEP_NODELIST"])
    tasks = expand_counts(environment["SLURM_STEP_TASKS_PER_NODE"])
    step = environment.get("SLURM_JOB_ID", ""), environment.get("SLURM_STEP_ID", "")
    room = len(PORTS) - max(tasks)
    first = PORTS.start + zlib.crc32(".".join(step).encode()) % room
    addresses = [
        f"{host}:{first + k}"
        for host, here in zip(hosts, tasks, strict=True)
        for k in range(here)
    ]
    index = int(environment["SLURM_PROCID"])
    here = environment.get("SLURMD_NODENAME", "")
    if here and here in hosts and not addresses[index].startswith(f"{here}:"):
        raise TrainingError(
            f"SLURM's task {index} must run on {addresses[index]}, and runs on {here}. "
            "Type srun --distribution=block."
        )
    return addresses, index


def expand_hosts(text: str) -> list[str]:
    """Returns the hosts of a SLURM node list.

    Example:
        >>> expand_hosts("login,node[01-03,7]")
        ['login', 'node01', 'node02', 'node03', 'node7']
    """
    # Commas separate numbers inside brackets, names outside.
    names = re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text)
    return [host for name in names for host in _expand_one(name.strip())]


def _expand_one(name: str) -> Iterator[str]:
    parts = re.split(r"\[([^\]]*)\]", name)
    choices = [[part] if k % 2 == 0 else _numbers(part) for k, part in enumerate(parts)]
    return map("".join, itertools.product(*choices))


def _numbers(text: str) -> list[str]:
    numbers = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        stop = int(last or first) + 1
        numbers += [f"{k:0{len(first)}}" for k in range(int(first), stop)]
    return numbers


def expand_counts(text: str) -> list[int]:
    """Returns the number of tasks on each node.

    Example:
        >>> expand_counts("2(x3),1")
        [2, 2, 2, 1]
    """
    counts = []
    for part in text.split(","):
        count, _, times = part.strip().removesuffix(")").partition("(x")
        counts += [int(count)] * int(times or 1)
    return counts
