"""Checks that the extras of tlkit can be installed together.

    python -m tests.extras

For each combination that users type, pip resolves all dependencies without installing
anything. A conflict fails. So does a package that an extra names and that gets another
version in the combination of all extras than with that extra alone: pip resolves some
conflicts by going back to an old version.
"""

import concurrent.futures
import functools
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib

ROOT = pathlib.Path(__file__).parent.parent
COMBINATIONS = ("samples,plots,lite", "kaggle", "presets", "tfds", "hub")


def extras():
    """Returns the extras but `test`: the names of each one's packages, by its name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {
        extra: [re.match(r"[\w.-]+", requirement)[0] for requirement in requirements]
        for extra, requirements in project["optional-dependencies"].items()
        if extra != "test"
    }


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pip failed: {arguments}\n{done.stdout}{done.stderr}")


def write_wheel(folder):
    """Writes a wheel with the metadata of tlkit, without its modules."""
    (folder / "tlkit").mkdir()
    (folder / "tlkit" / "__init__.py").touch()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    pip("wheel", "--quiet", "--no-deps", "--wheel-dir", folder, folder)
    return next(folder.glob("*.whl"))


def resolve(wheel, combination):
    """Returns the versions that pip picks, by normalized name; raises on a conflict."""
    report = wheel.with_name(f"{combination}.json")
    options = ("--quiet", "--dry-run", "--ignore-installed", "--report", report)
    pip("install", *options, f"{wheel}[{combination}]")
    found = json.loads(report.read_text())["install"]
    return {normalized(x["metadata"]["name"]): x["metadata"]["version"] for x in found}


def normalized(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def main():
    packages = extras()
    everything = ",".join(sorted(packages))
    combinations = (everything, *COMBINATIONS)
    missing = set(packages) - set(",".join(COMBINATIONS).split(","))
    if missing:
        raise SystemExit(f"No combination has {', '.join(sorted(missing))}.")
    with (
        tempfile.TemporaryDirectory() as folder,
        concurrent.futures.ThreadPoolExecutor(3) as pool,
    ):
        job = functools.partial(resolve, write_wheel(pathlib.Path(folder)))
        versions = dict(zip(combinations, pool.map(job, combinations), strict=True))
    older = []
    for combination in combinations:
        names = sorted({n for e in combination.split(",") for n in packages[e]})
        resolved = {name: versions[combination][normalized(name)] for name in names}
        shown = ", ".join(f"{name} {version}" for name, version in resolved.items())
        print(f"[{combination}] {len(versions[combination])} packages: {shown}")
        for name, version in resolved.items():
            together = versions[everything][normalized(name)]
            if together != version:
                older.append(f"{name} {version} alone, {together} with all extras")
    if older:
        raise SystemExit("Extras conflict: " + "; ".join(older))


if __name__ == "__main__":
    main()
