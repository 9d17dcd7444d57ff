"""The trainer's report: ``STATE/trainer/report.json``, for status, demo and bench to read.

It is replaced as a whole every few seconds and at the end, so a reader never sees half of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from inttower.core.durable_files import write_atomic

Phase = Literal["starting", "warmup", "stream", "stopped"]
FigureRow = dict[str, float | int | None]


class Counts(msgspec.Struct, kw_only=True):
    """Samples since the beginning of the topic, through restarts.

    seen = repeated + learnt + waiting.

    Attributes:
        seen: impressions read.
        learnt: taken for learning, those of the warm-up too.
        warmup: of these, the warm-up's.
        repeated: dropped, for their identity was seen before.
        behind: records that came after a watermark that should have covered them.
        waiting: read, and their wait has not passed; before the warm-up's end, all.
        open: impressions that actions can still give another label.
        queued: rows and corrections that wait until a batch is full.
        actions: actions read.
        unmatched: of these, those whose impression was not open any more.
        corrected: samples that were given another label after they had been learnt.
        late_labels: of these, those whose attribution window had passed.
        cut_short: impressions dropped before their window had passed (trainer.max_open_rows).
        refused: records that cannot be read or learnt from, set aside.
    """

    seen: int = 0
    learnt: int = 0
    warmup: int = 0
    repeated: int = 0
    behind: int = 0
    waiting: int = 0
    open: int = 0
    queued: int = 0
    actions: int = 0
    unmatched: int = 0
    corrected: int = 0
    late_labels: int = 0
    cut_short: int = 0
    refused: int = 0


class PublishedCounts(msgspec.Struct, kw_only=True):
    """What one channel was sent by this process, and its newest version."""

    version: str | None = None
    versions: int = 0
    deltas: int = 0


class TrainerReport(msgspec.Struct, kw_only=True):
    """The state of a trainer: progress, counts and figures.

    Attributes:
        written_ms: wall time of this report.
        started_ms: wall time at which this process started.
        phase: what it does now.
        samples: see :class:`Counts`.
        batches: learning steps in the stream.
        loss: of the newest step.
        offsets: next record of each partition of the sample topic.
        lag: records on the topic that were not read yet.
        watermark: time (ms) up to which samples are complete; -1: no mark yet.
        newest_at: when the newest sample learnt was shown, ms.
        models: figures by model: over ``all`` rows kept, and over the sliding ``window``.
        evaluated: predictions recorded since the beginning.
        published: by channel.
        checkpoint: number of the newest checkpoint, and when it was written.
        checkpoint_ms: wall time of that checkpoint.
        ids: rows of the id tables.
        seconds: wall time spent by this process, by activity.
    """

    written_ms: int = 0
    started_ms: int = 0
    phase: Phase = "starting"
    samples: Counts = msgspec.field(default_factory=Counts)
    batches: int = 0
    loss: float | None = None
    offsets: dict[int, int] = {}
    lag: int = 0
    watermark: int = -1
    newest_at: int = 0
    models: dict[str, dict[str, FigureRow]] = {}
    evaluated: int = 0
    published: dict[str, PublishedCounts] = {}
    checkpoint: int | None = None
    checkpoint_ms: int | None = None
    ids: dict[str, int] = {}
    seconds: dict[str, float] = {}


def report_path(state: Path) -> Path:
    """Where the trainer of this state folder leaves its report."""
    return state / "trainer" / "report.json"


def write_report(path: Path, report: TrainerReport) -> None:
    """Replace the report as a whole."""
    data = msgspec.json.format(msgspec.json.encode(report), indent=1)
    write_atomic(path, data, durable=False)


def read_report(path: Path) -> TrainerReport | None:
    """The newest report; None while there is none."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=TrainerReport)
    except FileNotFoundError:
        return None
