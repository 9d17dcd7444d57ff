"""Brings the closed impressions of an experiment from ``training.samples`` to the analysis."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from serving.experiments.analysis import ExperimentReport, Exposure, report
from serving.experiments.assignment import Experiment
from settings.errors import EventError
from settings.settings import Settings
from streaming.kafka.span import read_span, span
from streaming.kafka.topics import SAMPLES


class _Row(msgspec.Struct, frozen=True):
    """The fields of a sample that an analysis needs; a mark has none of them."""

    user_id: str | None = None
    ts: int = 0
    label: int = 0
    variant: str | None = None
    score: float | None = None
    propensity: float | None = None


def collect(settings: Settings, start_ms: int | None = None) -> Iterator[Exposure]:
    """Every sample so far that carries a variant, read once and committed ones only.

    Args:
        settings: where the broker is.
        start_ms: impressions before this event time are left out.

    Raises:
        BrokerError: the broker cannot be reached, or stops answering on the way.
        EventError: a record is no sample.
    """
    topic = settings.topic(SAMPLES)
    decode = msgspec.json.Decoder(_Row).decode
    for record in read_span(settings, *span(settings, [SAMPLES])):
        try:
            row = decode(record.value)
        except msgspec.MsgspecError as error:
            raise EventError(
                f"{topic}, partition {record.partition}, offset {record.offset} is no sample:"
                f" {error}; was it written by another job?",
                reason="schema",
            ) from error
        if row.user_id is None or row.variant is None:
            continue
        if start_ms is None or row.ts >= start_ms:
            yield Exposure(row.user_id, row.variant, row.score, row.label, row.propensity)


def experiment_report(settings: Settings, experiment: Experiment) -> ExperimentReport:
    """The report of the experiment in force, over every sample that has closed."""
    return report(
        experiment.name,
        {v.name: v.share for v in experiment.variants},
        collect(settings, experiment.start_ms),
    )
