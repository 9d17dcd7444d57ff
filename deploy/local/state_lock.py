"""The lock of a state folder, which names its owner: one headrace a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from settings.errors import ConfigurationError

LOCK_FILE = "lock"


class Owner(msgspec.Struct, frozen=True):
    """The owner of a state folder: a command, its process id, and since when (UTC)."""

    command: str
    pid: int
    since: str

    def __str__(self) -> str:
        return f"{self.command}, pid {self.pid}, since {self.since}"


@contextmanager
def state_lock(state: Path, command: str) -> Iterator[None]:
    """Hold the lock: no other command may start parts or delete data in this folder.

    The kernel releases it when the process ends, however that happens.

    Args:
        state: the folder; created if it is missing.
        command: name of the owner, such as ``headrace up``.

    Raises:
        ConfigurationError: another process holds it; names that process.
    """
    state.mkdir(parents=True, exist_ok=True)
    with (state / LOCK_FILE).open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = _read(state)
            stop = f"stop it (Ctrl-C, or `kill {owner.pid}`)" if owner else "stop it"
            raise ConfigurationError(
                f"{state} is in use ({owner or 'its owner is just starting'}): {stop}, or give this"
                " one another folder with --state"
            ) from error
        file.truncate(0)
        since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        file.write(msgspec.json.encode(Owner(command, os.getpid(), since)))
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def lock_owner(state: Path) -> Owner | None:
    """The current owner of the state folder; None if there is none."""
    path = state / LOCK_FILE
    if not path.exists():
        return None
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _read(state)
    return None


def _read(state: Path) -> Owner | None:
    try:
        return msgspec.json.decode((state / LOCK_FILE).read_bytes(), type=Owner)
    except (FileNotFoundError, msgspec.DecodeError):
        return None
