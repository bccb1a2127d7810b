"""The command line of the launcher."""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Callable, Mapping

from ..errors import TlkitError, TrainingError
from .cluster import config_of, free_addresses, read_cluster, unproxied
from .gpus import shares
from .job import Job, run, say
from .slurm import slurm_workers

_DESCRIPTION = """\
Starts a script in several workers that train together, passes on what they print, and
starts all again when one dies. The script asks for strategy="multi_worker".
"""
_EPILOG = """\
Which workers: --workers N starts N on this machine, on free ports. Where TF_CONFIG
names a cluster (Kubernetes, Vertex AI), or srun has started several tasks, each
launcher starts the one worker that it is. The script finds TF_CONFIG, and in
TLKIT_RESTART how often the job was started again.

A worker that ends with exit status 0 has finished. When one dies, the others are
killed, and the job starts again, unless all ended with an error in their first minute.
Ctrl-C goes to each worker once; those still there after --grace seconds are killed.
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the launcher.

    Args:
        arguments: What stands behind `python -m tlkit.launch`; those of the process if
            `None`.

    Returns:
        The exit status: 0 when every worker has finished, 2 after a wrong command line;
        else that of the worker that died, or 128 and the number of the signal that
        killed it or that the launcher got.
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
    parser.add_argument("--workers", type=_count, help="how many, on this machine")
    parser.add_argument(
        "--restarts",
        type=_natural,
        default=3,
        help="how often the job may start again (default: %(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=60.0,
        help="seconds to leave after Ctrl-C or SIGTERM (default: %(default)g)",
    )
    parser.add_argument("-m", dest="module", action="store_true", help="run a module")
    parser.add_argument("script", help="a Python file, or a module's name after -m")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the script")
    return parser


def _number(text: str, kind: type, least: float):
    try:
        number = kind(text)
    except ValueError:
        number = least - 1
    if not least <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{least} or more is allowed, not {text!r}")
    return number


def _count(text: str) -> int:
    return _number(text, int, 1)


def _natural(text: str) -> int:
    return _number(text, int, 0)


def _seconds(text: str) -> float:
    return _number(text, float, 0)


def _command(options: argparse.Namespace) -> list[str]:
    """What each worker runs."""
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
    """The environments of the workers to start, and whether they are all there are."""
    cluster = read_cluster(environment)
    if cluster is not None:
        _agree(count, len(cluster.addresses), "TF_CONFIG names", "env -u TF_CONFIG")
        added = unproxied(environment, list(cluster.addresses))
        one = {cluster.index: environment | added}
        return lambda: one, len(cluster.addresses) == 1
    step = slurm_workers(environment)
    if step is not None:
        addresses, index = step
        _agree(count, len(addresses), "srun started", "srun --ntasks=1")
        added = {"TF_CONFIG": config_of(addresses, index)}
        added |= unproxied(environment, addresses)
        return lambda: {index: environment | added}, False
    if count is None:
        raise TrainingError(
            "How many workers? Type --workers 2 for two on this machine. (There is "
            "neither a cluster in TF_CONFIG nor are there several tasks of srun.)"
        )
    own = shares(environment, count)

    def local() -> dict[int, dict[str, str]]:
        addresses = free_addresses(count)
        say(f"{count} workers: {', '.join(addresses)}")
        base = environment | unproxied(environment, addresses)
        configs = [{"TF_CONFIG": config_of(addresses, k)} for k in range(count)]
        return {k: base | configs[k] | own[k] for k in range(count)}

    return local, True


def _agree(count: int | None, there: int, who: str, instead: str) -> None:
    if count not in (None, there):
        raise TrainingError(
            f"{who} {there} workers, and this starts one of them; --workers {count} "
            f"does not fit. Leave --workers away, or type {instead} before the command "
            "for workers on this machine alone."
        )
