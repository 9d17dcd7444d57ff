"""``bench delay``: AUC against the age of the counters that a model reads.

Events, labels and learning are the same in all runs. Only the features are as of an earlier time,
in the warm-up too, so that the model learns how old they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from bench.auc_series import auc_figure, auc_table, by_model
from bench.bench_models import contender
from bench.log_rows import LogRows, Times
from bench.predict_then_learn import Protocol, overall, run
from bench.refresh import Refresh
from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit

LAGS = ["0s", "10s", "60s", "5min", "1h", "1d", "256"]
_NONE = "0s"


def bench_delay(
    options: Options,
    *,
    models: Sequence[str],
    warm_up: float,
    batch: int,
    lags: Sequence[str],
    seeds: int,
) -> list[Row]:
    """Run it.

    Args:
        options: log and files.
        models: names of :data:`bench.bench_models.MODELS`.
        warm_up: part of the log that is learnt first.
        batch: rows predicted, then learnt, at a time.
        lags: how old features are, or the number of events between two refreshes of all
            features; see :meth:`Refresh.parse`, and ``0s``.
        seeds: runs of each.
    """
    contenders = {name: contender(name, in_time=False) for name in models}
    parsed = {lag: None if lag == _NONE else Refresh.parse(lag, "--lag") for lag in lags}
    session = Session("delay", options)
    data = LogRows(*session.open())

    def unit(name: str, lag: str, seed: int) -> Unit:
        times = late(data.ts, parsed[lag])
        protocol = Protocol(warm_up, batch, frozen_features=False, known_at=times.__getitem__)

        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            outcome = run(
                lambda spec: contenders[name].make(spec, seed),
                data,
                protocol,
                seed=seed,
                report=say,
            )
            for mode, figures in overall(outcome, data):
                yield {"mode": mode}, figures

        return Unit(
            title=f"{contenders[name].title}, late by {lag}, seed {seed}",
            key={"model": name, "lag": lag, "warm_up": warm_up, "batch": batch, "seed": seed},
            count=2,
            measure=measure,
        )

    units = [unit(n, lag, s) for n in models for lag in lags for s in range(seeds)]
    rows = session.measure(units)
    session.finish(rows, _table(rows, lags), _figure(rows, lags))
    return rows


def late(ts: Times, lag: Refresh | None) -> Times:
    """The time as of which each row's features are read.

    >>> late(np.array([10_000, 11_000, 12_000]), Refresh.parse("1s")).tolist()
    [9000, 10000, 11000]
    >>> late(np.array([10_000, 11_000, 12_000]), Refresh.parse("2")).tolist()
    [10000, 10000, 12000]
    """
    if lag is None:
        return ts
    if lag.every_rows:
        newest: Times = ts[np.arange(len(ts)) // lag.every_rows * lag.every_rows]
        return newest
    return ts - np.int64(lag.every_ms)


def _label(lag: str) -> str:
    return f"every {lag} events" if lag.isdecimal() else lag


def _table(rows: Sequence[Row], lags: Sequence[str]) -> Table:
    series = by_model(rows, "mode", "lag")
    return auc_table("AUC by how late the features are", "mode", series, lags, _label)


def _figure(rows: Sequence[Row], lags: Sequence[str]) -> Figure:
    return auc_figure("features are late by", by_model(rows, "mode", "lag"), lags, _label)
