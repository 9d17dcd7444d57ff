"""The whole loop as one object, which the demo and the benches start, feed and wait for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from deploy.local import parts
from deploy.local.http_client import Client
from deploy.local.launcher import Launcher
from deploy.local.ports import busy_ports
from deploy.local.reset_state import reset_state
from deploy.local.start import broker_and_topics
from deploy.local.state_lock import state_lock
from settings.errors import ConfigurationError, HeadraceError
from settings.settings import Settings
from streaming.logs import EventLog
from streaming.replay.progress_bar import progress_bar
from streaming.replay.replayer import Replayed, Replayer, Transform
from trainer.trainer_report import TrainerReport, read_report, report_path

_POLL_S = 0.1
_MEMORY_S = 1.0
# events that a replay at full speed may run ahead of the job: some seconds of work, so that the job
# never waits for events between two checks
_LEAD = 50_000
# in a row: a demo or a bench gives up: the part would not recover
_MOST_DEATHS = 5


class Loop:
    """Broker, job, writer, trainer and server over an empty state folder, fed by one log.

    Use as a context manager; leaving it stops every part.

    Args:
        settings: their state folder is emptied first.
        log: what is replayed.
        out: one line is printed whenever something happens.
        names: the parts besides the broker.
        command: the name of this command, shown to others that find the state folder in use.
    """

    def __init__(
        self,
        settings: Settings,
        log: EventLog,
        out: Console,
        names: tuple[str, ...] = ("job", "writer", "trainer", "server"),
        command: str = "headrace demo",
    ) -> None:
        self.settings = settings
        self.log = log
        self.client = Client(settings)
        self.produced = 0
        self.peak_bytes = 0
        self._out = out
        self._names = names
        self._command = command
        self._stack = ExitStack()
        self._left = threading.Event()
        self._launcher: Launcher | None = None

    def __enter__(self) -> Loop:
        with ExitStack() as stack:
            stack.enter_context(state_lock(self.settings.state, self._command))
            for _ in reset_state(self.settings):
                pass
            if busy := busy_ports(self.settings):
                raise ConfigurationError(
                    f"ports in use: {', '.join(f'{port} ({what})' for what, port in busy.items())};"
                    " stop what listens there (`headrace doctor`), or choose others with --set"
                )
            launcher = broker_and_topics(self.settings, self.say, _MOST_DEATHS)
            self._launcher = stack.enter_context(launcher)
            path = self.settings.state / parts.SETTINGS_FILE
            watcher = threading.Thread(target=self._watch_memory, daemon=True)
            watcher.start()
            stack.callback(watcher.join)
            stack.callback(self._left.set)
            self._launcher.start([parts.build(name, self.settings, path) for name in self._names])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def say(self, line: str) -> None:
        """Print a line."""
        self._out.print(line, markup=False, highlight=False, soft_wrap=True)

    def replay(
        self,
        label: str,
        *,
        first: int = 0,
        stop: int | None = None,
        speed: float | None = None,
        longest_wait_s: float | None = None,
        transform: Transform | None = None,
        catalogue: bool = True,
    ) -> Replayed:
        """Replay a stretch of the log, with a progress bar, watching the parts meanwhile.

        Without a speed it goes as fast as the job does.
        """
        replay = Replayer(
            self.settings,
            self.log,
            first=first,
            stop=stop,
            speed=speed,
            longest_wait_s=longest_wait_s,
            catalogue=catalogue,
            lead=_LEAD if speed is None else None,
        )
        with progress_bar(label, self._out) as bar:

            def progress(done: int, total: int) -> None:
                self.watch()
                bar(done, total)

            done = replay.run(transform=transform, progress=progress)
        self.say(f"{label}: the job is closing its last samples ...")
        replay.close_samples(self.watch)
        self.produced += done.impressions
        return done

    def watch(self) -> None:
        """Restart parts that have died.

        Raises:
            LaunchError: one keeps dying.
        """
        if self._launcher is not None:
            self._launcher.watch()

    def start_part(self, name: str) -> None:
        """Start one more part, and wait until it is ready."""
        if self._launcher is not None:
            path = self.settings.state / parts.SETTINGS_FILE
            self._launcher.start([parts.build(name, self.settings, path)])

    def writer_lag(self) -> float:
        """Feature records that the writer has not written to the store yet, by its metrics."""
        url = f"http://127.0.0.1:{self.settings.writer_metrics_port}/metrics"
        found = text_string_to_metric_families(httpx.get(url).text)
        return sum(
            sample.value
            for family in found
            if family.name == "headrace_writer_lag_records"
            for sample in family.samples
        )

    def stop_part(self, name: str) -> None:
        """Stop one part cleanly, so that it writes its checkpoint first."""
        if self._launcher is not None:
            self._launcher.stop_part(name)

    def trainer_report(self) -> TrainerReport:
        """The trainer's newest report; an empty one before its first."""
        return read_report(report_path(self.settings.state)) or TrainerReport()

    def wait_until(self, what: str, done: Callable[[], bool], seconds: float) -> None:
        """Wait while watching the parts.

        Raises:
            HeadraceError: not true in time.
        """
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise HeadraceError(
                    f"{what}: not within {seconds:.0f} s; the logs of the parts are in"
                    f" {self.settings.state / 'logs'}"
                )
            self.watch()
            time.sleep(_POLL_S)

    def wait_until_learnt(self, impressions: int, seconds: float = 600) -> None:
        """Wait until the trainer has learnt so many samples, except those whose wait is not over.

        A sample is learnt when the watermark has passed its wait, which it does not for the last
        ones of a log that is cut short: two reports between which nothing was read or learnt.
        """
        before = TrainerReport()

        def learnt() -> bool:
            nonlocal before
            report = self.trainer_report()
            samples = report.samples
            if samples.learnt + samples.repeated >= impressions:
                return True
            if report.written_ms == before.written_ms:
                return False
            idle = report.phase == "stream" and report.samples == before.samples
            before = report
            taken = samples.learnt + samples.repeated + samples.waiting
            return idle and taken >= impressions

        self.wait_until(f"the trainer has learnt {impressions:,} samples", learnt, seconds)

    def _watch_memory(self) -> None:
        while not self._left.wait(_MEMORY_S):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)
