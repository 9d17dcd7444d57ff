"""AUC by model and one more setting, over a setting that varies: as a table and as a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from matplotlib.figure import Figure
from rich.table import Table

from bench.bench_models import contender
from bench.results import Row
from bench.summary import mean_of, spread_of

Series = Mapping[tuple[str, str], Mapping[str, Sequence[Row]]]


def by_model(rows: Sequence[Row], group: str, varied: str) -> Series:
    """Rows by model and value of ``group``, then by value of ``varied``; all are keys of a row."""
    series: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        points = series.setdefault((row.key["model"], row.key[group]), {})
        points.setdefault(row.key[varied], []).append(row)
    return series


def auc_table(
    title: str, group: str, series: Series, values: Sequence[str], label: Callable[[str], str]
) -> Table:
    """A row a model and group, a column a value of the varied setting."""
    table = Table(title=title)
    table.add_column("model")
    table.add_column(group)
    for value in values:
        table.add_column(label(value))
    for (model, name), points in series.items():
        cells = [spread_of(points.get(value, ()), "auc") for value in values]
        table.add_row(contender(model).title, name, *cells)
    return table


def auc_figure(
    axis: str, series: Series, values: Sequence[str], label: Callable[[str], str]
) -> Figure:
    """A line a model and group, over the values of the varied setting."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    labels = [label(value) for value in values]
    for (model, name), points in series.items():
        means = [mean_of(points.get(v, ()), "auc", missing=float("nan")) for v in values]
        panel.plot(labels, means, marker="o", label=f"{contender(model).title}, {name}")
    panel.set(xlabel=axis, ylabel="AUC of the stream")
    panel.grid(alpha=0.3)
    panel.legend()
    return figure
