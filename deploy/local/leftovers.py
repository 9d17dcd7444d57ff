"""Leftovers: pid files of parts, and processes that outlived their launcher."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec
import psutil

_GONE_SECONDS = 10.0


class PidFile(msgspec.Struct, frozen=True):
    """A part's process id and start time; process ids are reused, so the id alone is not enough."""

    pid: int
    created: float

    @classmethod
    def of(cls, pid: int) -> PidFile:
        """The entry of a running process."""
        return cls(pid, psutil.Process(pid).create_time())

    def write(self, path: Path) -> None:
        """Write it, for a later launcher to find."""
        path.write_bytes(msgspec.json.encode(self))


def leftovers(pid_folder: Path) -> dict[str, int]:
    """Parts of this folder whose processes run: part name to process id."""
    found = {}
    for path in sorted(pid_folder.glob("*.json")):
        kept = msgspec.json.decode(path.read_bytes(), type=PidFile)
        try:
            process = psutil.Process(kept.pid)
            if process.create_time() == kept.created and (process.status() != psutil.STATUS_ZOMBIE):
                found[path.stem] = process.pid
        except psutil.NoSuchProcess:
            continue
    return found


def end_leftovers(pid_folder: Path) -> list[str]:
    """Kill the process groups of an earlier run whose launcher is gone; returns their names.

    The caller holds the state folder's lock, so no launcher runs. The processes are gone when it
    returns, and their ports with them.
    """
    found = leftovers(pid_folder)
    ended = []
    for pid in found.values():
        try:
            leader = psutil.Process(pid)
            ended += [leader, *leader.children(recursive=True)]
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    psutil.wait_procs(ended, timeout=_GONE_SECONDS)
    for path in pid_folder.glob("*.json"):
        path.unlink()
    return list(found)
