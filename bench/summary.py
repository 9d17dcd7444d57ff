"""Means and standard deviations of figures over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev

import numpy as np

from bench.results import Row
from trainer.trainer_report import TrainerReport


def values_of(rows: Sequence[Row], name: str) -> list[float]:
    """The figure of each row that has it."""
    return [row.figures[name] for row in rows if row.figures.get(name) is not None]


def mean_of(rows: Sequence[Row], name: str, missing: float) -> float:
    """The mean of a figure, or ``missing`` if no row has it."""
    values = values_of(rows, name)
    return mean(values) if values else missing


def spread_of(rows: Sequence[Row], name: str, digits: int = 4) -> str:
    """Mean and standard deviation over the rows, as tables show them.

    >>> spread_of([Row("b", {}, {"auc": 0.5}), Row("b", {}, {"auc": 0.6})], "auc")
    '0.5500 ± 0.0707'
    >>> spread_of([], "auc")
    '–'
    """
    values = values_of(rows, name)
    if not values:
        return "–"
    text = f"{mean(values):.{digits}f}"
    return f"{text} ± {stdev(values):.{digits}f}" if len(values) > 1 else text


def report_figures(report: TrainerReport) -> dict[str, dict[str, float | int | None]]:
    """The trainer's figures over all its predictions, by metric and model."""
    return {
        metric: {model: rows["all"][metric] for model, rows in report.models.items()}
        for metric in ("auc", "logloss", "gauc", "calibration")
    }


def percentiles(values: list[float], which: tuple[int, ...]) -> dict[str, float | None]:
    """Percentiles by name (``p50``); None where there is no value.

    >>> percentiles([1.0, 2.0, 3.0], (50,))
    {'p50': 2.0}
    """
    return {f"p{p}": round(float(np.percentile(values, p)), 2) if values else None for p in which}
