"""Times variants in processes of their own, in turn, and prints ratios of medians.

A machine that others share drifts: only ratios within one run say something, and
variants take turns so that a slow minute meets all of them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence


def run_variants(
    module: str,
    variants: Sequence[str],
    *,
    repeats: int,
    pythons: Mapping[str, str] | None = None,
) -> dict[str, list[dict]]:
    """Runs `python -m <module> --variant <name>` for each variant, `repeats` times.

    Args:
        module: The benchmark's module; with `--variant` it prints a line of JSON.
        variants: Their names.
        repeats: How often each runs.
        pythons: The interpreters of those variants that do not run in this one.

    Returns:
        What each run of each variant printed.
    """
    pythons = pythons or {}
    found: dict[str, list[dict]] = {name: [] for name in variants}
    for turn in range(repeats):
        for name in variants:
            done = subprocess.run(
                [pythons.get(name, sys.executable), "-m", module, "--variant", name],
                capture_output=True,
                text=True,
                env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            if done.returncode:
                raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
            figures = json.loads(done.stdout.strip().splitlines()[-1])
            found[name].append(figures)
            print(f"run {turn + 1} of {repeats}, {name}: {figures}", flush=True)
    return found


def median(runs: Sequence[dict], key: str) -> float:
    """The median of a figure over runs."""
    return statistics.median(run[key] for run in runs)


def peak_memory_mb() -> float:
    """The most memory that this process has held, in MB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
