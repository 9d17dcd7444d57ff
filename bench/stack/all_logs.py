"""``bench all``: every log × the default model, its parts and its rivals, in one table.

It checks promise 10: on no log is the default worse than the best of logistic regression on the
live counters, its own frozen weights, and the click rates of item and user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from bench.bench_models import contender
from bench.log_rows import LogRows
from bench.predict_then_learn import Outcome, Protocol, run
from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from bench.stack.list_figures import list_figures, requests_of
from bench.stack.stacked_stream import (
    BASE,
    DEFAULT,
    FROZEN,
    RATES,
    STACKED_MODES,
    StackedProtocol,
    StackedStream,
)
from bench.stack.user_errors import errors
from inttower.evaluate import figures
from settings.errors import ConfigurationError
from streaming.logs.choose import shipped_names

STACKED = "stacked"
RIVALS = ("dcn", "deepfm")
_SIMPLE = (BASE, FROZEN, RATES)
_BATCH = 128


def logs_below(folder: Path) -> list[tuple[str, Path | None]]:
    """Every TOML in a folder, and every shipped log whose folder of files is there.

    The files of a shipped log ``NAME`` lie in a folder whose name begins with NAME, or in one
    below it.
    """
    found: list[tuple[str, Path | None]] = [(str(p), None) for p in sorted(folder.glob("*.toml"))]
    for name in shipped_names():
        for place in sorted(folder.glob(f"{name}*")):
            if place.is_dir():
                below = [one for one in sorted(place.iterdir()) if one.is_dir()]
                files = [one for one in place.iterdir() if one.is_file()]
                found.append((name, below[0] if below and len(files) < 2 else place))
                break
    if not found:
        raise ConfigurationError(
            f"--logs {folder}: no TOML and no folder of a shipped log there"
            f" ({', '.join(shipped_names())}): give the folder that holds them"
        )
    return found


def bench_all(
    options: Options, *, logs: Path, rivals: Sequence[str] = RIVALS, warm_up: float = 0.8
) -> list[Row]:
    """Run it.

    Args:
        options: files and threads.
        logs: the folder of logs, see :func:`logs_below`.
        rivals: names of :data:`bench.bench_models.MODELS` that are run as well.
        warm_up: share of each log that is learnt first.
    """
    for name in rivals:
        contender(name)
    rows: list[Row] = []
    session = None
    for log, folder in logs_below(logs):
        session = Session("all", replace(options, log=log, path=folder))
        data = LogRows(*session.open())
        rows += session.measure([_unit(name, data, warm_up) for name in (STACKED, *rivals)])
    if session is not None:
        session.finish(rows, _table(rows), _figure(rows))
    return rows


def _unit(name: str, data: LogRows, warm_up: float) -> Unit:
    def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
        if name == STACKED:
            outcome = StackedStream(data, StackedProtocol(warm_up), 0, say).run()
        else:
            one = contender(name)
            whole = run(
                lambda spec: one.make(spec, 0),
                data,
                Protocol(warm_up, _BATCH, frozen_features=False),
                state=one.state,
                report=say,
            )
            outcome = Outcome(whole.rows, {DEFAULT: whole.logits["online"]})
        yield from mode_figures(outcome, data)

    return Unit(
        title=name,
        key={"model": name, "warm_up": warm_up},
        count=len(STACKED_MODES) if name == STACKED else 1,
        measure=measure,
    )


def mode_figures(
    outcome: Outcome, data: LogRows
) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Figures of each mode, with errors by users, and the differences to the default's."""
    users = data.log.impressions.users[outcome.rows]
    labels = data.log.labels[outcome.rows]
    requests = requests_of(data.ts[outcome.rows], users)
    default = outcome.logits[DEFAULT]
    for mode, logits in outcome.logits.items():
        found: dict[str, Any] = figures(logits, labels, users).to_json()
        found |= errors(logits, labels, users) | list_figures(logits, labels, requests)
        if mode != DEFAULT:
            apart = errors(default, labels, users, logits)
            found |= {f"default_minus_{name}": value for name, value in apart.items()}
        yield {"mode": mode}, found


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="predict, then learn; ± one standard error, by users")
    for column in (
        "log", "model", "AUC", "log loss", "calibration", "in lists: AUC", "MRR", "NDCG@10"
    ):  # fmt: skip
        table.add_column(column)
    for row in rows:
        f = row.figures
        name = row.key["mode"] if row.key["model"] == STACKED else contender(row.key["model"]).title
        table.add_row(
            Path(str(row.key["log"])).stem,
            "default" if name == DEFAULT else name,
            _with_error(f["auc"], f["auc_se"]),
            _with_error(f["logloss"], f["logloss_se"]),
            _number(f["calibration"], 2),
            *(_number(f[name], 3) for name in ("list_auc", "mrr", "ndcg10")),
        )
    return table


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _with_error(value: float | None, error: float) -> str:
    return "–" if value is None else f"{value:.4f} ± {error:.4f}"


def _figure(rows: Sequence[Row]) -> Figure:
    """Log loss of the default less that of each simple rival, log by log: left of 0 is better."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    mine = [row for row in rows if row.key["model"] == STACKED]
    defaults = {row.key["log"]: row.figures for row in mine if row.key["mode"] == DEFAULT}
    names = [Path(str(log)).stem for log in defaults]
    for mode in _SIMPLE:
        theirs = {row.key["log"]: row.figures for row in mine if row.key["mode"] == mode}
        apart = [defaults[log]["logloss"] - theirs[log]["logloss"] for log in defaults]
        spread = [theirs[log]["default_minus_logloss_se"] for log in defaults]
        panel.errorbar(apart, names, xerr=spread, fmt="o", label=f"default − {mode}")
    panel.axvline(0, color="grey")
    panel.set(xlabel="log loss")
    panel.legend()
    return figure
