"""The trainer as a process, fed by hand.

Importing torch and all that the trainer needs costs seconds of CPU time, so that all processes but
the one of ``python -m trainer`` are forked from a server which has done that already.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from settings.settings import Settings
from streaming.kafka import topics
from streaming.kafka.client import create_topics
from streaming.kafka.writer import Writer
from tests.trainer import synthetic
from tests.trainer.build import digest
from trainer import __main__ as program
from trainer import checkpoint, trainer_loop
from trainer.checkpoint import Checkpoint
from trainer.trainer_report import TrainerReport, read_report, report_path

_NEEDED = (topics.USERS, topics.ITEMS, topics.SAMPLES, topics.MODEL_UPDATES)
_forks = multiprocessing.get_context("forkserver")
# the second is what torch imports when it is told to be deterministic
_forks.set_forkserver_preload(["trainer.__main__", "torch._inductor"])


def until(
    true: Callable[[], object], what: str, *, seconds: float = 60, every: float = 0.02
) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(every)


def make_topics(settings: Settings) -> None:
    """The topics that the trainer reads and writes, and the catalogue in them."""
    needed = {settings.topic(name) for name in _NEEDED}
    create_topics(settings, [t for t in topics.all_topics(settings) if t.name in needed])
    with Writer(settings, bulk=True) as writer:
        for topic, key, value in synthetic.catalogue():
            writer.send(settings.topic(topic), 0, key.encode(), value)


def feed(settings: Settings, records: Iterable[bytes], partition: int = 0) -> None:
    """Put samples and marks on the sample topic."""
    with Writer(settings, bulk=True) as writer:
        for value in records:
            writer.send(settings.topic(topics.SAMPLES), partition, b"k", value)


def _run(path: str, log: str) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    trainer_loop._REPORT_S = 0.05  # tests wait for what it tells
    sys.exit(program.main([path]))


class TrainerProcess:
    """A trainer, started and ended any number of times; as a context manager, killed at the end.

    Args:
        settings: with a state folder of its own, unless ``name`` tells two apart.
        name: of its log.
    """

    def __init__(self, settings: Settings, name: str = "trainer") -> None:
        self.settings = settings
        self._path = settings.state / "settings.json"
        self._log = settings.state / f"{name}.log"
        self._path.write_bytes(settings.to_json())
        self._process: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> TrainerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self.kill()

    def start(self) -> None:
        """Start it with an empty log."""
        assert self._process is None
        self._log.write_text("")
        report_path(self.settings.state).unlink(missing_ok=True)
        self._process = _forks.Process(target=_run, args=(str(self._path), str(self._log)))
        self._process.start()

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.join(20)
        self._process = None

    def stop(self) -> None:
        """End it by SIGTERM; it must end well."""
        assert self._process is not None
        self._process.terminate()
        assert self.wait() == 0, self.log

    def wait(self) -> int | None:
        """Wait until it ends; its exit status."""
        assert self._process is not None
        self._process.join(30)
        code, self._process = self._process.exitcode, None
        return code

    @property
    def log(self) -> str:
        return self._log.read_text()

    def says(self, text: str) -> None:
        """Wait for a text in the log of this start."""

        def said() -> bool:
            assert self._process is not None
            assert self._process.is_alive(), self.log
            return text in self.log

        until(said, text)

    def goes_on(self) -> int:
        """Wait until it goes on from a checkpoint; the samples that this one has learnt."""
        self.says("samples learnt\n")
        return int(re.findall(r"going on from .*: (\d+) samples learnt", self.log)[0])

    @property
    def report(self) -> TrainerReport:
        """Its newest report of this start."""
        return read_report(report_path(self.settings.state)) or TrainerReport()

    def learns(self, count: int) -> None:
        """Wait until it has learnt so many samples."""

        def learnt() -> bool:
            assert self._process is not None
            assert self._process.is_alive(), self.log
            report = self.report
            return report.phase == "stream" and report.samples.learnt >= count

        until(learnt, f"{count} samples are learnt")


def torn(settings: Settings) -> list[Path]:
    """Checkpoints that are being written, or were when their writer died."""
    return list((settings.state / "trainer").glob(".tmp-0*"))


def newest(settings: Settings) -> Checkpoint | None:
    """The newest checkpoint, read beside a trainer that may be running."""
    found = sorted((settings.state / "trainer").glob("checkpoint-*"))
    try:
        return checkpoint._read(found[-1], int(found[-1].name[-12:]))[0] if found else None
    except checkpoint._DamagedError:  # it was let go meanwhile
        return newest(settings)


def learnt_bytes(settings: Settings) -> dict[str, str]:
    """A hash of each part of the newest checkpoint: all that was learnt, and all that waits."""
    found = newest(settings)
    assert found is not None
    return digest(found.parts)
