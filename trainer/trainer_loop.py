"""The trainer's process: samples in; checkpoints, versions and deltas out.

One thread does everything, so that a checkpoint always falls between two learning steps. Wall time
decides when something is written or sent; it never decides what is learnt.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any

import msgspec

from features.catalogue import Catalogue, CatalogueReader
from features.declared import declared_features
from features.model_inputs import model_spec
from features.samples import sample_decoder
from settings.errors import CheckpointError
from settings.settings import Settings
from streaming.kafka.writer import Writer
from trainer.build_models import build_models, fingerprint
from trainer.checkpoint import CheckpointFolder
from trainer.intake import Intake, IntakeFacts
from trainer.learning.online_learner import OnlineLearner
from trainer.learning.sample_inputs import SampleInputs
from trainer.publisher import Publisher
from trainer.source import SampleSource
from trainer.timer import Timer
from trainer.trainer_metrics import Metrics
from trainer.trainer_report import (
    Counts,
    FigureRow,
    Phase,
    TrainerReport,
    report_path,
    write_report,
)

log = logging.getLogger(__name__)

_IDLE_MS = 20
_REPORT_S = 2.0
# between two looks at changed attributes
_ENTITIES_S = 0.5
# figures over all rows may cost seconds; they get this part of the time
_FIGURES_SHARE = 0.05
_CHECKPOINT_SHARE = 0.1


class StoppedError(Exception):
    """The trainer was asked to stop while it fitted the warm-up."""


class _Meta(msgspec.Struct, kw_only=True):
    """The small facts of a checkpoint."""

    run: str
    intake: IntakeFacts
    catalogue: list[tuple[str, int, int]]


class Trainer:
    """All parts of one trainer, wired.

    Args:
        settings: of the whole system.
        stop: set it, and the trainer ends in order: deltas, a last checkpoint, the report.

    Attributes:
        learner: what learns.
        metrics: that the process exposes.

    It raises:
        BrokerError: no broker, or no topics.
        CheckpointError: another trainer runs here, or no checkpoint can be used.
    """

    def __init__(self, settings: Settings, stop: threading.Event) -> None:
        self._settings = settings
        self._stop = stop
        self.metrics = Metrics()
        declared = declared_features(settings)
        spec = model_spec(declared)
        self._fingerprint = fingerprint(settings, spec)
        state = settings.state.absolute()
        self._folder = CheckpointFolder(state / "trainer", settings.trainer.keep_checkpoints)
        checkpoint = self._folder.load(self._fingerprint)
        meta = msgspec.json.decode(checkpoint.meta, type=_Meta) if checkpoint else None
        # names all that follows from one warm-up, through restarts
        self._run = meta.run if meta else uuid.uuid4().hex

        self._source = SampleSource(settings, meta.intake.offsets if meta else {})
        self._intake = Intake(self._source, sample_decoder(declared))
        self._catalogue = CatalogueReader(settings, Catalogue(declared, history=True))
        inputs = SampleInputs(declared, self._catalogue.catalogue, self._catalogue.ensure)
        models = build_models(settings, spec)
        self.learner = OnlineLearner(settings, declared, models, inputs, self._fitting)
        self._report = TrainerReport(started_ms=_now_ms(), checkpoint=None)
        if checkpoint and meta:
            self._catalogue.read_to({(topic, p): at for topic, p, at in meta.catalogue})
            self._intake.restore(meta.intake, checkpoint.parts["waiting"])
            self.learner.restore(checkpoint.parts, self._intake.decoded)
            self._report.checkpoint = checkpoint.number
            self._report.checkpoint_ms = checkpoint.created_ms
            log.info(
                "going on from %s: %d samples learnt",
                checkpoint.path.name,
                self.learner.counters.learnt,
            )
        else:
            self._catalogue.read_to_end()
        self._publisher = Publisher(
            settings,
            self.learner,
            inputs,
            self.metrics,
            run=self._run,
            intake=self._intake,
            writer=Writer(settings, bulk=False, stopping=stop),
        )
        self._announced = False
        self._checkpoints = Timer(settings.trainer.checkpoint_every_s)
        self._reports = Timer(_REPORT_S)
        self._entities = Timer(_ENTITIES_S)
        self._figures = Timer(_REPORT_S)
        self._seconds = dict.fromkeys(("read", "learn", "publish", "checkpoint", "report"), 0.0)

    def run(self) -> None:
        """Learn until a stop is requested.

        Raises:
            CheckpointError: the next sample has been deleted from the topic.
            BrokerError: the broker refuses what is published.
        """
        try:
            while not self._stop.is_set():
                self._turn()
        except StoppedError:
            log.info("stopped while fitting the warm-up: the next start does it again")
        self._finish()

    def _turn(self) -> None:
        """One round: read what has come, learn what is complete, then what wall time asks for."""
        started = time.monotonic()
        # with nothing to read this waits; with much to read it returns at once
        self._intake.poll(_IDLE_MS)
        self._seconds["read"] += time.monotonic() - started
        started, batches = time.monotonic(), self.learner.counters.batches
        for arrived in self._intake.release():
            self.learner.add(arrived)
            stepped = self.learner.counters.batches != batches
            if stepped or (self.learner.warm and not self._announced):
                self._note_steps(started, batches)
                self._tick()
                started, batches = time.monotonic(), self.learner.counters.batches
            if self._stop.is_set():
                return
        self.learner.advance(self._intake.order.watermark)
        self._note_steps(started, batches)
        self._tick()

    def _note_steps(self, started: float, batches: int) -> None:
        """Measure what was done since then, when so many batches had been learnt."""
        seconds = time.monotonic() - started
        self._seconds["learn"] += seconds
        steps = self.learner.counters.batches - batches
        for _ in range(steps):
            self.metrics.batch_seconds.observe(seconds / steps)

    def _tick(self) -> None:
        """Save and send what is due. Called between two steps only."""
        if self._entities.due():
            self._catalogue.poll()
        if self.learner.warm:
            if not self._announced:
                # first what cannot be lost, then what the world may know
                self._save()
                started = time.monotonic()
                self._publisher.begin()
                self._announced = True
            else:
                started = time.monotonic()
                self._publisher.tick()
            self._seconds["publish"] += time.monotonic() - started
            if self._checkpoints.due():
                self._save()
        if self._reports.due():
            self._write_report("stream" if self.learner.warm else "warmup")

    def _save(self) -> None:
        started = time.monotonic()
        # a delta sent now need not be remembered by the checkpoint
        self._publisher.flush()
        meta = _Meta(
            run=self._run,
            intake=self._intake.facts(),
            catalogue=[(t, p, at) for (t, p), at in self._catalogue.offsets.items()],
        )
        parts: dict[str, dict[str, Any]] = dict(self.learner.parts())
        parts["waiting"] = self._intake.part()
        try:
            path = self._folder.save(msgspec.json.encode(meta), self._fingerprint, parts)
        except CheckpointError as error:
            # learning goes on: a later one may succeed, and until then the last one is used
            self.metrics.checkpoints.labels("failed").inc()
            log.error("%s", error)  # noqa: TRY400 - the text has the cause
            return
        self._report.checkpoint = int(path.name.rpartition("-")[2])
        self._report.checkpoint_ms = _now_ms()
        self.metrics.checkpoints.labels("written").inc()
        self.metrics.checkpoint_at.set_to_current_time()
        self.metrics.checkpoint_seconds.observe(time.monotonic() - started)
        seconds = time.monotonic() - started
        self._seconds["checkpoint"] += seconds
        # many open rows make it long: it must not take the time of learning
        self._checkpoints.wait(seconds / _CHECKPOINT_SHARE)

    def _finish(self) -> None:
        if self.learner.warm:
            self._save()
        self._figures.reset()
        self._write_report("stopped")
        self._publisher.close()
        self._catalogue.close()
        self._source.close()
        self._folder.close()
        log.info("stopped after %d samples", self.learner.counters.learnt)

    def _fitting(self, done: float) -> None:
        if self._stop.is_set():
            raise StoppedError
        if self._reports.due():
            log.info("warm-up: %.0f %% fitted", 100 * done)
            self._write_report("warmup")

    def _write_report(self, phase: Phase) -> None:
        started = time.monotonic()
        report, learner, order = self._report, self.learner, self._intake.order
        counters = learner.counters
        report.written_ms, report.phase = _now_ms(), phase
        report.samples = Counts(
            seen=self._intake.seen,
            learnt=counters.learnt,
            warmup=counters.warmup_samples,
            repeated=order.repeated,
            behind=order.behind,
            waiting=order.impressions + learner.waiting,
            open=len(learner.rows),
            queued=learner.queued,
            actions=self._intake.actions,
            unmatched=counters.unmatched,
            corrected=counters.corrected,
            late_labels=counters.late_labels,
            cut_short=counters.cut_short,
            refused=self._intake.refused,
        )
        report.batches, report.loss = counters.batches, counters.loss
        report.offsets, report.lag = self._intake.offsets, self._intake.lag()
        report.watermark, report.newest_at = order.watermark, counters.newest_at
        report.evaluated = learner.evaluation.recorded
        report.ids = learner.id_counts()
        report.published = self._publisher.published
        report.seconds = {**self._seconds, "warmup_fit": learner.fit_seconds}
        if self._figures.due() or phase == "stopped":
            self._count_figures()
        write_report(report_path(self._settings.state.absolute()), report)
        self.metrics.follow(report)
        self._seconds["report"] += time.monotonic() - started

    def _count_figures(self) -> None:
        started = time.monotonic()
        evaluation = self.learner.evaluation
        over: dict[str, dict[str, FigureRow]] = {}
        for name, figures in (
            ("all", evaluation.over_all()),
            ("window", evaluation.over_window()),
        ):
            self.metrics.show(figures, name)
            for model, found in figures.items():
                over.setdefault(model, {})[name] = found.to_json()
        self._report.models = over
        self._figures.wait((time.monotonic() - started) / _FIGURES_SHARE)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
