"""Brings the impressions of an experiment from ``training.samples`` to the analysis.

Clicks and non-clicks are counted alike: an impression counts once its attribution window has
passed. To count a click when it comes and a non-click when its window ends would make a young
experiment look clicked by everybody, and a variant look better that is clicked sooner.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from serving.experiments.analysis import ExperimentReport, report
from serving.experiments.assignment import Experiment
from serving.experiments.exposure import Exposure
from settings.errors import EventError
from settings.settings import Settings
from streaming.kafka.span import read_span, span
from streaming.kafka.topics import SAMPLES


class _Row(msgspec.Struct, frozen=True):
    """The fields that an analysis needs of an impression, of an action, or of a mark."""

    watermark: int | None = None
    shown_at: int | None = None
    impression_at: tuple[int, int] = (-1, -1)
    user_id: str = ""
    ts: int = 0
    label: int = 0
    experiment: str | None = None
    variant: str | None = None
    score: float | None = None
    propensity: float | None = None


class Collected(NamedTuple):
    """Impressions whose window has passed, and the event time up to which all are there, ms."""

    exposures: list[Exposure]
    closed_until_ms: int


def collect(settings: Settings, experiment: str, start_ms: int | None = None) -> Collected:
    """Every impression of an experiment whose window has passed, of committed records only.

    Args:
        settings: where the broker is, and how long the window.
        experiment: its name.
        start_ms: impressions before this event time are left out.

    Raises:
        BrokerError: the broker cannot be reached, or stops answering on the way.
        EventError: a record is no sample.
    """
    topic = settings.topic(SAMPLES)
    decode = msgspec.json.Decoder(_Row).decode
    shown: dict[tuple[int, int], tuple[int, _Row]] = {}  # with the partition of the record
    clicked: set[tuple[int, int]] = set()
    watermarks: dict[int, int] = {}
    for record in read_span(settings, *span(settings, [SAMPLES])):
        try:
            row = decode(record.value)
        except msgspec.MsgspecError as error:
            raise EventError(
                f"{topic}, partition {record.partition}, offset {record.offset} is no sample:"
                f" {error}; was it written by another job?",
                reason="schema",
            ) from error
        if row.watermark is not None:
            newest = watermarks.get(record.partition, row.watermark)
            watermarks[record.partition] = max(newest, row.watermark)
        elif row.shown_at is None:
            # an action may be written before its impression: only the watermark orders them
            if row.label:
                clicked.add(row.impression_at)
        elif row.experiment == experiment and (start_ms is None or row.ts >= start_ms):
            shown[row.impression_at] = (record.partition, row)
    window = settings.log.attribution_ms
    found = []
    for place, (partition, row) in shown.items():
        window_ends = (row.shown_at or 0) + window
        if row.variant is not None and watermarks.get(partition, -1) > window_ends:
            label = int(place in clicked)
            found.append(
                Exposure(row.user_id, row.variant, row.score, label, row.propensity, row.ts)
            )
    return Collected(found, min(watermarks.values(), default=0) - window)


def experiment_report(settings: Settings, experiment: Experiment) -> ExperimentReport:
    """The report of the experiment in force, over every impression whose window has passed."""
    collected = collect(settings, experiment.name, experiment.start_ms)
    return report(
        experiment.name,
        {v.name: v.share for v in experiment.variants},
        collected.exposures,
        plan=experiment.plan,
        closed_until_ms=collected.closed_until_ms,
    )
