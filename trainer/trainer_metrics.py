"""Prometheus metrics of the trainer.

====================================================  =========  ================================
``headrace_trainer_samples_seen``                     gauge      read since the topic's beginning
``headrace_trainer_samples_learnt``                   gauge      learnt, warm-up included
``headrace_trainer_samples_repeated``                 gauge      dropped: identity seen before
``headrace_trainer_samples_behind``                   gauge      arrived after the watermark
``headrace_trainer_samples_waiting``                  gauge      read, not learnt yet
``headrace_trainer_samples_open``                     gauge      can still be given another label
``headrace_trainer_samples_queued``                   gauge      wait until a batch is full
``headrace_trainer_samples_corrected``                gauge      given another label once learnt
``headrace_trainer_samples_late_labels``              gauge      of these, after their window
``headrace_trainer_samples_cut_short``                gauge      dropped before their window passed
``headrace_trainer_samples_actions``                  gauge      actions read
``headrace_trainer_samples_unmatched``                gauge      actions without an open impression
``headrace_trainer_samples_refused``                  gauge      set aside: cannot be learnt from
``headrace_trainer_batches``                          gauge      learning steps in the stream
``headrace_trainer_batch_seconds``                    histogram  predict, learn and record
``headrace_trainer_loss``                             gauge      of the newest batch
``headrace_trainer_warm``                             gauge      1 from the end of the warm-up on
``headrace_trainer_lag_records``                      gauge      on the topic, not read yet
``headrace_trainer_watermark_seconds``                gauge      event time that is complete
``headrace_trainer_auc`` …``_logloss`` …              gauge      by ``model`` and ``over`` (all,
``_calibration`` …``_gauc``                                      window)
``headrace_trainer_ids``                              gauge      rows of an id table, by ``table``
``headrace_trainer_versions_total``                   counter    published, by ``channel``
``headrace_trainer_version_failures_total``           counter    could not be published, by channel
``headrace_trainer_version_seconds``                  histogram  making and publishing a version
``headrace_trainer_deltas_total``                     counter    messages sent, by ``channel``
``headrace_trainer_delta_rows_total``                 counter    rows sent, by ``side``
``headrace_trainer_checkpoints_total``                counter    written, by ``result``
``headrace_trainer_checkpoint_seconds``               histogram  of writing one
``headrace_trainer_checkpoint_timestamp_seconds``     gauge      wall time of the newest one
====================================================  =========  ================================
"""

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
            _P + "batch_seconds", "one batch", buckets=_SHORT, registry=r
        )
        self.loss = Gauge(_P + "loss", "loss of the newest batch", registry=r)
        self.warm = Gauge(_P + "warm", "1 from the end of the warm-up on", registry=r)
        self.lag = Gauge(_P + "lag_records", "on the topic, not read yet", registry=r)
        self.watermark = Gauge(_P + "watermark_seconds", "complete event time", registry=r)
        self._figures = {
            name: Gauge(_P + name, f"{name} of a model", ["model", "over"], registry=r)
            for name in _FIGURES
        }
        self.ids = Gauge(_P + "ids", "rows of an id table", ["table"], registry=r)
        self.versions = Counter(_P + "versions", "versions published", ["channel"], registry=r)
        self.version_failures = Counter(
            _P + "version_failures", "versions that could not be published", ["channel"], registry=r
        )
        self.version_seconds = Histogram(_P + "version_seconds", "one version", registry=r)
        self.deltas = Counter(_P + "deltas", "delta messages sent", ["channel"], registry=r)
        self.delta_rows = Counter(_P + "delta_rows", "rows in deltas", ["side"], registry=r)
        self.checkpoints = Counter(_P + "checkpoints", "checkpoints", ["result"], registry=r)
        self.checkpoint_seconds = Histogram(
            _P + "checkpoint_seconds", "one checkpoint", buckets=_SHORT, registry=r
        )
        self.checkpoint_at = Gauge(
            _P + "checkpoint_timestamp_seconds", "newest checkpoint", registry=r
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
