"""``bench windows``: learn window T, predict window T + 1, as MLPerf's dlrm_v4 does.

The log is cut into windows of equal time. For each, the default model is fitted on the windows
before it and predicts it twice: with frozen weights, and online.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from bench.log_rows import LogRows
from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from bench.stack.all_logs import mode_figures
from bench.stack.stacked_stream import STACKED_MODES, StackedProtocol, StackedStream
from settings.errors import ConfigurationError


def bench_windows(options: Options, *, windows: int) -> list[Row]:
    """Run it.

    Args:
        options: log and files.
        windows: how many the log is cut into, 2 or more.

    Raises:
        ConfigurationError: a window holds no impression.
    """
    session = Session("windows", options)
    data = LogRows(*session.open())
    edges = np.linspace(data.ts[0], data.ts[-1] + 1, windows + 1)
    bounds = np.searchsorted(data.ts, edges).tolist()
    if min(np.diff(bounds)) == 0:
        raise ConfigurationError(f"--windows {windows}: one of them holds no row: take fewer")

    def unit(number: int) -> Unit:
        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            protocol = StackedProtocol(until=bounds[number], stop=bounds[number + 1])
            yield from mode_figures(StackedStream(data, protocol, 0, say).run(), data)

        key = {"windows": windows, "window": number + 1}
        return Unit(f"window {number + 1}", key, len(STACKED_MODES), measure)

    rows = session.measure([unit(number) for number in range(1, windows)])
    session.finish(rows, _table(rows), _figure(rows))
    return rows


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="each window, from all before it")
    for column in ("window", "mode", "rows", "AUC", "log loss", "calibration"):
        table.add_column(column)
    for row in rows:
        f = row.figures
        shown = ["–" if f[n] is None else f"{f[n]:.4f}" for n in ("auc", "logloss", "calibration")]
        table.add_row(str(row.key["window"]), row.key["mode"], str(f["rows"]), *shown)
    return table


def _figure(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    panel = figure.subplots()
    for mode in STACKED_MODES:
        mine = [row for row in rows if row.key["mode"] == mode]
        panel.plot(
            [r.key["window"] for r in mine], [r.figures["logloss"] for r in mine], label=mode
        )
    panel.set(xlabel="window", ylabel="log loss")
    panel.legend(fontsize="x-small")
    return figure
