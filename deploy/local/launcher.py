"""The launcher: starts the parts on this machine, watches and restarts them, stops them cleanly.

It knows command lines and readiness checks, and nothing about what the parts do; it imports none of
them. Every part leads its own process group, so that killing the group also kills child
processes (the JVM behind PyFlink).

The launcher waits for a part that is alive and makes progress, and reports what it is doing. A part
that dies is restarted after a delay that doubles with each death (backoff); the others keep
running.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deploy.local.leftovers import PidFile, end_leftovers
from deploy.local.start_progress import StartProgress
from settings.deploy_settings import DeploySettings
from settings.errors import HeadraceError

STOP_SECONDS = 20.0
# after running this long a part has started well: its earlier deaths no longer count
_RECOVERED_SECONDS = 60.0
_REPORT_SECONDS = 10.0
_LOOK_SECONDS = 2.0
_POLL_SECONDS = 0.1
_LAST_LINES = 8


class LaunchError(HeadraceError):
    """A part did not start, or keeps dying; names it, its log, and the log's last lines."""


@dataclass(frozen=True)
class Part:
    """A process to run.

    Args:
        name: unique; names the log and the pid file.
        command: the command line.
        ready: True once the part works; called a few times a second until then.
        environment: added to this process's own.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    environment: Mapping[str, str] = field(default_factory=dict)


class _Running:
    """One part and its process; a dead one is restarted at ``again_at``."""

    def __init__(self, part: Part, process: subprocess.Popen[bytes], log: Path) -> None:
        self.part = part
        self.deaths = 0
        self.begin(process, log)

    def begin(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.progress = StartProgress(process.pid, log)
        self.ready = False
        self.again_at: float | None = None
        self.looked = self.progress.began


class Launcher:
    """Runs parts; use as a context manager so that nothing outlives an error.

    The caller holds the folder's :func:`~deploy.local.state_lock.state_lock`: entering ends
    processes that an earlier launcher left.

    Args:
        folder: gets ``logs/PART.log`` and ``run/PART.json`` (the pid files).
        report: called with one line whenever something happens.
        limits: how long to wait for what.
        most_deaths: deaths in a row after which a part is an error; None: never.

    Attributes:
        restarts: how often a part was restarted.
    """

    def __init__(
        self,
        folder: Path,
        report: Callable[[str], None],
        limits: DeploySettings,
        most_deaths: int | None = None,
    ) -> None:
        self._logs = folder / "logs"
        self._pids = folder / "run"
        self._report = report
        self._limits = limits
        self._most_deaths = most_deaths
        self._running: dict[str, _Running] = {}
        self._reported = 0.0
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
            LaunchError: one of them died, got stuck, or was not ready in time.
        """
        self.begin(parts)
        names = [part.name for part in parts]
        while not self.ready(names):
            for name in names:
                running = self._running[name]
                if failure := self._look(running):
                    raise self._failure(running.part, failure)
            self._report_starting()
            time.sleep(_POLL_SECONDS)

    def begin(self, parts: Sequence[Part]) -> None:
        """Start parts and return at once; :meth:`watch` follows them."""
        for part in parts:
            self._running[part.name] = _Running(part, self._spawn(part), self._log(part))

    def ready(self, names: Sequence[str]) -> bool:
        """Whether all of these parts are ready."""
        return all(self._running[name].ready for name in names)

    def watch(self) -> None:
        """Check every part, and restart dead ones; call it about once a second.

        Raises:
            LaunchError: a part has died more than ``most_deaths`` times in a row.
        """
        now = time.monotonic()
        for running in self._running.values():
            if running.again_at is not None:
                if now >= running.again_at:
                    self.restarts += 1
                    running.begin(self._spawn(running.part), self._log(running.part))
            elif failure := self._look(running):
                self._died(running, failure)
        self._report_starting()

    def pids(self) -> dict[str, int]:
        """The process id of each part."""
        return {name: r.process.pid for name, r in self._running.items()}

    def stop_part(self, name: str) -> None:
        """Stop one part by SIGTERM; kill its group if it does not stop."""
        running = self._running.pop(name)
        if running.process.poll() is None:
            running.process.send_signal(signal.SIGTERM)
            try:
                running.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._report(f"{name}: did not stop within {STOP_SECONDS:.0f} s, killed")
        self._end_group(running.process)
        self._pid_file(name).unlink(missing_ok=True)

    def stop(self) -> None:
        """Stop all parts, in reverse order of their start."""
        for name in reversed(list(self._running)):
            self.stop_part(name)

    def _look(self, running: _Running) -> str:
        """What is wrong with a part; empty if nothing is."""
        code = running.process.poll()
        if code is not None:
            return f"ended with code {code}" + ("" if running.ready else " before it was ready")
        if running.ready:
            return ""
        name, progress, now = running.part.name, running.progress, time.monotonic()
        if running.part.ready():
            running.ready = True
            self._report(f"{name}: ready after {now - progress.began:.1f} s")
            return ""
        if now - running.looked >= min(_LOOK_SECONDS, self._limits.stall_timeout_s / 4):
            running.looked = now
            progress.look()
        if now - progress.moved > self._limits.stall_timeout_s:
            return (
                f"is not ready and did nothing for {self._limits.stall_timeout_s:g} s"
                " (deploy.stall_timeout_s)"
            )
        if now - progress.began > self._limits.start_timeout_s:
            return (
                f"was not ready within {self._limits.start_timeout_s:g} s (deploy.start_timeout_s)"
            )
        return ""

    def _report_starting(self) -> None:
        """Report what all starting parts are doing, in one line every ten seconds."""
        starting = [r for r in self._running.values() if not r.ready and r.again_at is None]
        now = time.monotonic()
        if any(now - max(self._reported, r.progress.began) >= _REPORT_SECONDS for r in starting):
            self._reported = now
            parts = (f"{r.part.name} ({r.progress.line()})" for r in starting)
            self._report(f"starting: {', '.join(parts)}")

    def _died(self, running: _Running, failure: str) -> None:
        lived = time.monotonic() - running.progress.began
        recovered = running.ready and lived > _RECOVERED_SECONDS
        running.deaths = 1 if recovered else running.deaths + 1
        if self._most_deaths is not None and running.deaths > self._most_deaths:
            raise self._failure(running.part, f"{failure}, {running.deaths} times in a row")
        self._end_group(running.process)
        limits = self._limits
        # the exponent is bounded: floats are
        doubled = limits.restart_wait_s * 2 ** min(running.deaths - 1, 30)
        wait = min(limits.longest_restart_wait_s, doubled)
        running.again_at = time.monotonic() + wait
        often = "" if running.deaths == 1 else f", {running.deaths} times in a row"
        self._report(
            f"{running.part.name}: {failure}{often}; started again in {wait:g} s, the others run"
            f" on; its log is {self._log(running.part)}"
        )

    def _spawn(self, part: Part) -> subprocess.Popen[bytes]:
        with self._log(part).open("ab") as log:
            process = subprocess.Popen(
                list(part.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **part.environment},
                start_new_session=True,
            )
        PidFile.of(process.pid).write(self._pid_file(part.name))
        return process

    def _log(self, part: Part) -> Path:
        return self._logs / f"{part.name}.log"

    def _pid_file(self, name: str) -> Path:
        return self._pids / f"{name}.json"

    def _failure(self, part: Part, what: str) -> LaunchError:
        log = self._log(part)
        last = log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
        return LaunchError("\n".join([f"{part.name} {what}; its log is {log} and ends:", *last]))

    @staticmethod
    def _end_group(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):  # the group has gone already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
