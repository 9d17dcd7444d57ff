"""Prometheus metrics of the trainer; docs list each with its help text."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from inttower.evaluate import Figures
from trainer.trainer_report import TrainerReport

_P = "headrace_trainer_"
_SHORT = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
_FIGURES = ("auc", "logloss", "calibration", "gauc")


class Metrics:
    """All of them, in a registry of their own so that a process may hold several trainers."""

    def __init__(self) -> None:
        r = self.registry = CollectorRegistry()
        # gauges, since a restart goes back to the checkpoint
        self._samples = {
            name: Gauge(f"{_P}samples_{name}", text, registry=r)
            for name, text in (
                ("seen", "samples read since the beginning of the topic"),
                ("learnt", "samples learnt, warm-up included"),
                ("repeated", "dropped: identity seen before"),
                ("behind", "arrived after the watermark"),
                ("waiting", "read, not learnt yet"),
                ("open", "can still be given another label"),
                ("queued", "wait until a batch is full"),
                ("corrected", "given another label after they were learnt"),
                ("late_labels", "given another label after their window"),
                ("cut_short", "dropped before their window had passed"),
                ("actions", "actions read"),
                ("unmatched", "actions whose impression was not open"),
                ("refused", "records set aside: they cannot be learnt from"),
            )
        }
        self.batches = Gauge(_P + "batches", "learning steps in the stream", registry=r)
        self.batch_seconds = Histogram(
            _P + "batch_seconds", "predict, learn and record one batch", buckets=_SHORT, registry=r
        )
        self.loss = Gauge(_P + "loss", "loss of the newest batch", registry=r)
        self.warm = Gauge(_P + "warm", "1 from the end of the warm-up on", registry=r)
        self.lag = Gauge(_P + "lag_records", "on the topic, not read yet", registry=r)
        self.watermark = Gauge(
            _P + "watermark_seconds", "event time up to which all is read", registry=r
        )
        self._figures = {
            name: Gauge(
                _P + name, f"{name} by model, over all or the window", ["model", "over"], registry=r
            )
            for name in _FIGURES
        }
        self.ids = Gauge(_P + "ids", "rows of an id table", ["table"], registry=r)
        self.versions = Counter(_P + "versions", "versions published", ["channel"], registry=r)
        self.version_failures = Counter(
            _P + "version_failures", "versions not published", ["channel"], registry=r
        )
        self.version_seconds = Histogram(
            _P + "version_seconds", "make and publish one version", registry=r
        )
        self.deltas = Counter(_P + "deltas", "delta messages sent", ["channel"], registry=r)
        self.delta_rows = Counter(_P + "delta_rows", "rows in deltas", ["side"], registry=r)
        self.checkpoints = Counter(
            _P + "checkpoints", "checkpoints by result", ["result"], registry=r
        )
        self.checkpoint_seconds = Histogram(
            _P + "checkpoint_seconds", "write one checkpoint", buckets=_SHORT, registry=r
        )
        self.checkpoint_at = Gauge(
            _P + "checkpoint_timestamp_seconds", "wall time of the newest checkpoint", registry=r
        )

    def follow(self, report: TrainerReport) -> None:
        """Take over what the report counts."""
        for name, gauge in self._samples.items():
            gauge.set(getattr(report.samples, name))
        self.batches.set(report.batches)
        if report.loss is not None:
            self.loss.set(report.loss)
        self.warm.set(report.phase == "stream")
        self.lag.set(report.lag)
        self.watermark.set(report.watermark / 1000)
        for table, rows in report.ids.items():
            self.ids.labels(table).set(rows)

    def show(self, figures: Mapping[str, Figures], over: str) -> None:
        """Set the figures of every model; ``over`` is ``all`` or ``window``."""
        for model, found in figures.items():
            for name, gauge in self._figures.items():
                value = getattr(found, name)
                if value is not None:
                    gauge.labels(model, over).set(value)
