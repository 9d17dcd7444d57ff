"""Starts the parts on this machine, watches them, restarts what dies, stops all of it cleanly.

It knows command lines and readiness checks, nothing of what the parts do; it imports none of
them. Every part is the leader of a process group of its own, so that ending the group also ends
what the part has started (the JVM behind PyFlink).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

STOP_SECONDS = 20.0
_GONE_SECONDS = 10.0
# a part that dies this often within a minute has a cause that a restart does not cure
RESTARTS_PER_MINUTE = 5


class LaunchError(Exception):
    """A part did not start, or keeps dying; names it, its log, and its last words."""


@dataclass(frozen=True)
class Part:
    """A process to run.

    Args:
        name: unique; names the log and the pid file.
        command: the command line.
        ready: True once the part does its work; called a few times a second.
        ready_seconds: how long that may take.
        environment: added to this process's own.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    ready_seconds: float = 120.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class _Running:
    part: Part
    process: subprocess.Popen[bytes]
    deaths: list[float] = field(default_factory=list)


class Launcher:
    """Runs parts; use as a context manager so that nothing outlives an error.

    Args:
        folder: gets ``logs/PART.log`` and ``run/PART.json`` (the pid files).
        report: told one line whenever something happens.
    """

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._logs = folder / "logs"
        self._pids = folder / "run"
        self._report = report
        self._running: dict[str, _Running] = {}
        self.restarts = 0

    def __enter__(self) -> Launcher:
        self._logs.mkdir(parents=True, exist_ok=True)
        self._pids.mkdir(parents=True, exist_ok=True)
        for name in end_leftovers(self._pids):
            self._report(f"{name}: ended a process left over from an earlier run")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, parts: Sequence[Part]) -> None:
        """Start parts together and return when each of them is ready.

        Raises:
            LaunchError: a part died, or was not ready in its time.
        """
        for part in parts:
            self._running[part.name] = _Running(part, self._spawn(part))
        deadlines = {p.name: time.monotonic() + p.ready_seconds for p in parts}
        began = time.monotonic()
        waiting = list(parts)
        while waiting:
            for part in list(waiting):
                process = self._running[part.name].process
                if process.poll() is not None:
                    raise self._failure(part, f"ended with code {process.returncode} at its start")
                if part.ready():
                    self._report(f"{part.name}: ready after {time.monotonic() - began:.1f} s")
                    waiting.remove(part)
                elif time.monotonic() > deadlines[part.name]:
                    raise self._failure(part, f"was not ready within {part.ready_seconds:.0f} s")
            time.sleep(0.1)

    def watch(self) -> None:
        """Restart what has died since the last call; call it about once a second.

        Raises:
            LaunchError: a part dies again and again.
        """
        for running in self._running.values():
            code = running.process.poll()
            if code is None:
                continue
            now = time.monotonic()
            running.deaths = [t for t in running.deaths if now - t < 60] + [now]
            if len(running.deaths) > RESTARTS_PER_MINUTE:
                raise self._failure(running.part, f"died {len(running.deaths)} times in a minute")
            self._end_group(running.process.pid)
            self._report(f"{running.part.name}: ended with code {code}, starting it again")
            self.restarts += 1
            running.process = self._spawn(running.part)

    def pids(self) -> dict[str, int]:
        """The process id of each part."""
        return {name: r.process.pid for name, r in self._running.items()}

    def stop_part(self, name: str) -> None:
        """Stop one part: asked first, ended with its group when it does not answer."""
        running = self._running.pop(name)
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            try:
                running.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._report(f"{name}: did not stop within {STOP_SECONDS:.0f} s, killed")
        self._end_group(running.process.pid)
        running.process.wait()
        self._pid_file(name).unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop all parts, the last one started first."""
        for name in reversed(list(self._running)):
            self.stop_part(name)

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        with (self._logs / f"{part.name}.log").open("ab") as log:
            process = subprocess.Popen(
                list(part.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **part.environment},
                start_new_session=True,
            )
        created = psutil.Process(process.pid).create_time()
        self._pid_file(part.name).write_text(json.dumps({"pid": process.pid, "created": created}))
        return process

    def _pid_file(self, name: str) -> Path:
        return self._pids / f"{name}.json"

    def _failure(self, part: Part, what: str) -> LaunchError:
        log = self._logs / f"{part.name}.log"
        last = log.read_text(errors="replace").strip().splitlines()[-8:]
        return LaunchError("\n".join([f"{part.name} {what}; its log is {log} and ends:", *last]))

    @staticmethod
    def _end_group(leader: int) -> None:
        try:
            os.killpg(leader, signal.SIGKILL)
        except ProcessLookupError:
            return  # the group has gone already


def leftovers(pid_folder: Path) -> dict[str, int]:
    """Processes of an earlier run that are still there: part name to process id.

    A pid alone may have been given to somebody else, so the start time must agree too.
    """
    found = {}
    for path in sorted(pid_folder.glob("*.json")):
        kept = json.loads(path.read_text())
        try:
            process = psutil.Process(kept["pid"])
            if process.create_time() == kept["created"] and (
                process.status() != psutil.STATUS_ZOMBIE
            ):
                found[path.stem] = process.pid
        except psutil.NoSuchProcess:
            continue
    return found


def end_leftovers(pid_folder: Path) -> list[str]:
    """End the process groups of an earlier run whose launcher is gone; returns their names.

    They are gone when it returns, and their ports with them.
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
