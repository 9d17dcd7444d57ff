"""The streaming job as a process, and what it has written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import msgspec

from features.logs.movielens_features import MOVIELENS
from features.samples import Action, Mark, Shown, sample_decoder
from features.sql import render_job
from settings.settings import Settings
from streaming.kafka import topics
from streaming.kafka.ledger import count_events
from streaming.kafka.span import read_span, span
from streaming.kafka.sums import Sums


def until(done: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something to come true."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.2)


class JobProcess:
    """``python -m streaming.job.flink_job``; as a context manager it is killed at the end."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.path = settings.state / "settings.json"
        self.path.write_bytes(settings.to_json())
        sql = settings.state / "flink" / "job.sql"
        sql.parent.mkdir(parents=True, exist_ok=True)
        sql.write_text(render_job(MOVIELENS, settings).text)
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> JobProcess:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, in a process group of its own."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "streaming.job.flink_job", str(self.path)],
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        """What it has said."""
        return self.settings.state / "job.log"

    def kill(self) -> None:
        """Kill -9 the whole group, the JVM too."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def runs(self) -> bool:
        """Whether Flink says that it runs."""
        url = f"http://127.0.0.1:{self.settings.job_metrics_port}/metrics"
        try:
            return httpx.get(url).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.process = None
        return code

    def settled(self, seconds: float = 300, meanwhile: Callable[[], None] = lambda: None) -> Sums:
        """The sums, once each event that lies on the topics has become something."""
        found: list[Sums] = []

        def done() -> bool:
            assert self.process is None or self.process.poll() is None, self.log.read_text()[-3000:]
            meanwhile()
            found.append(count_events(self.settings))
            return not found[-1].impressions["open"] and not found[-1].clicks["open"]

        until(done, seconds, "everything has become a sample or a dead letter")
        return found[-1]


def values(settings: Settings, topic: str) -> Iterator[bytes]:
    """Every committed record of a topic."""
    return (record.value for record in read_span(settings, *span(settings, [topic])))


def samples(settings: Settings) -> list[Shown | Action]:
    """Every record of the samples but the marks, in no order that counts."""
    decode = sample_decoder(MOVIELENS)
    found = (decode(value) for value in values(settings, topics.SAMPLES))
    return [sample for sample in found if not isinstance(sample, Mark)]


def dead_letters(settings: Settings) -> list[dict[str, Any]]:
    """Every dead letter."""
    return [msgspec.json.decode(value) for value in values(settings, topics.DEAD_LETTERS)]
