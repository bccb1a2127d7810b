"""The command line of the launcher: `python -m tlkit.launch`.

Tested in tests/test_launch.py.
"""

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Mapping

from ..errors import TlkitError, TrainingError
from .cluster import bypass_proxy, free_addresses, read_cluster, tf_config
from .gpus import assign_gpus
from .job import Job, run
from .output import say
from .slurm import slurm_workers

_DESCRIPTION = """\
Starts a script in several workers that train together, prints their output, and
restarts all of them if one dies. The script uses strategy="multi_worker".
"""
_EPILOG = """\
--workers N starts N workers on this machine, on free ports. If TF_CONFIG names a
cluster (Kubernetes, Vertex AI), or srun started several tasks, each launcher starts
its one worker. The script gets TF_CONFIG, and in TLKIT_RESTART the number of restarts.

A worker that exits with status 0 has finished. If one dies, the others are killed and
the job restarts, unless all workers failed in their first minute. Ctrl-C is passed to
each worker once; workers that still run after --grace seconds are killed.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the launcher.

    Args:
        arguments: The arguments after `python -m tlkit.launch`; those of the process
            if `None`.

    Returns:
        The exit status: 0 if every worker has finished, 2 after a wrong command line;
        else that of the worker that died, or 128 plus the number of the signal that
        killed it or that the launcher received.
    """
    options = _parser().parse_args(arguments)
    try:
        command = _command(options)
        environments, alone = _workers(options.workers, dict(os.environ))
        grace = options.grace
        job = Job(command, environments, alone, restarts=options.restarts, grace=grace)
        return run(job)
    except TlkitError as error:
        say(str(error))
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tlkit.launch",
        usage="%(prog)s [options] script.py …\n       %(prog)s [options] -m module …",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--workers", type=_at_least(1), help="number of workers on this machine"
    )
    parser.add_argument(
        "--restarts",
        type=_at_least(0),
        default=3,
        help="maximum number of restarts (default: %(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=_at_least(0, float),
        default=60.0,
        help="seconds to exit after Ctrl-C or SIGTERM (default: %(default)g)",
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module")
    parser.add_argument("script", help="a Python file, or a module's name after -m")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    return parser


def _at_least(least: int, kind: type = int) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = least - 1
        if not least <= number < float("inf"):
            raise argparse.ArgumentTypeError(
                f"{least} or more is allowed, not {text!r}"
            )
        return number

    return parse


def _command(options: argparse.Namespace) -> list[str]:
    """Returns the command that each worker runs."""
    if options.module:
        return [sys.executable, "-m", options.script, *options.arguments]
    if not pathlib.Path(options.script).exists():
        raise TrainingError(
            f"There is no script {options.script!r} in {pathlib.Path.cwd()}. Type -m "
            "before the name of a module."
        )
    return [sys.executable, options.script, *options.arguments]


def _workers(
    count: int | None, environment: dict[str, str]
) -> tuple[Callable[[], Mapping[int, dict[str, str]]], bool]:
    """Returns the environments of the workers to start, and if the job has no others.

    The environments are returned by a function, since each attempt needs free ports.
    """
    cluster = read_cluster(environment)
    if cluster is not None:
        _check(count, len(cluster.addresses), "TF_CONFIG names", "env -u TF_CONFIG")
        added = bypass_proxy(environment, list(cluster.addresses))
        one = {cluster.index: environment | added}
        return lambda: one, len(cluster.addresses) == 1
    step = slurm_workers(environment)
    if step is not None:
        addresses, index = step
        _check(count, len(addresses), "srun started", "srun --ntasks=1")
        added = {"TF_CONFIG": tf_config(addresses, index)}
        added |= bypass_proxy(environment, addresses)
        return lambda: {index: environment | added}, False
    if count is None:
        raise TrainingError(
            "How many workers? Type --workers 2 for two on this machine. (There is "
            "neither a cluster in TF_CONFIG nor are there several tasks of srun.)"
        )
    gpus = assign_gpus(environment, count)

    def local() -> dict[int, dict[str, str]]:
        addresses = free_addresses(count)
        say(f"{count} workers: {', '.join(addresses)}")
        base = environment | bypass_proxy(environment, addresses)
        configs = [{"TF_CONFIG": tf_config(addresses, k)} for k in range(count)]
        return {k: base | configs[k] | gpus[k] for k in range(count)}

    return local, True


def _check(count: int | None, cluster_count: int, source: str, instead: str) -> None:
    if count not in (None, cluster_count):
        raise TrainingError(
            f"{source} {cluster_count} workers, and this launcher starts one of them; "
            f"--workers {count} does not fit. Leave out --workers, or type {instead} "
            "before the command for workers on this machine alone."
        )
