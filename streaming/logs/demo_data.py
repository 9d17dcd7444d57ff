"""The demo's log, ML-100K, from a package that carries it.

The data's licence forbids redistribution, so none of it is in this repository. The user's own
installer fetches the package ``recbole`` from the user's package index, and the three files are
checked by checksum.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from settings.errors import LogFileError

PACKAGE = "recbole==1.2.1"
_INSIDE = Path("recbole") / "dataset_example" / "ml-100k"
_SHA256 = {
    "ml-100k.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
    "ml-100k.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
    "ml-100k.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
}


def fetch_ml_100k(folder: Path) -> Path:
    """Fetch ML-100K, in RecBole's form, into a folder, unless it is there already.

    Args:
        folder: the target; created if needed.

    Returns:
        The folder.

    Raises:
        LogFileError: the package cannot be fetched, or its files are not the known ones.
    """
    if all((folder / name).exists() for name in _SHA256):
        _check(folder)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        _install(Path(scratch))
        source = Path(scratch) / _INSIDE
        _check(source)
        for name in _SHA256:
            (source / name).replace(folder / name)
    return folder


def _install(target: Path) -> None:
    options = ["--no-deps", "--target", str(target), PACKAGE]
    uv = shutil.which("uv")
    if uv:
        command = [uv, "pip", "install", "--python", sys.executable, *options]
    else:
        command = [sys.executable, "-m", "pip", "install", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LogFileError(
            f"cannot fetch the demo's log: `{' '.join(command)}` failed:"
            f" {done.stderr.strip()[-500:]}\nIs the package index reachable? Without network, get"
            " MovieLens from https://grouplens.org/datasets/movielens/ and give its folder:"
            " `headrace demo --log ml-100k --path DIR`"
        )


def _check(folder: Path) -> None:
    for name, expected in _SHA256.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except FileNotFoundError as error:
            raise LogFileError(
                f"{PACKAGE} does not carry {name}: was another version installed?"
            ) from error
        if found != expected:
            raise LogFileError(
                f"{path} is not the file that {PACKAGE} carries (sha256 {found}, expected"
                f" {expected}): delete {folder} and run again"
            )
