"""``bench online``: every mode of predict-then-learn, for several models and warm-ups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from bench.bench_models import WITH_STATE, contender
from bench.log_rows import LogRows
from bench.predict_then_learn import MODES, OVERALL, SLICES, Protocol, measured, run
from bench.refresh import Refresh
from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from bench.stack.all_logs import STACKED
from bench.stack.stacked_stream import STACKED_MODES, StackedProtocol, StackedStream
from bench.summary import mean_of, spread_of
from settings.errors import ConfigurationError

_FIGURES = {
    "auc": "AUC",
    "logloss": "log loss",
    "gauc": "GAUC",
    "calibration": "calibration",
    "list_auc": "in lists: AUC",
    "mrr": "MRR",
    "ndcg10": "NDCG@10",
}


def bench_online(
    options: Options,
    *,
    models: Sequence[str],
    warm_ups: Sequence[float],
    batch: int,
    refreshes: Sequence[str],
    seeds: int,
    refit_every: int | None = None,
) -> list[Row]:
    """Run it.

    Args:
        options: log and files.
        models: names of :data:`bench.bench_models.MODELS`, and ``stacked``, the default model.
        warm_ups: shares of the log that are learnt first.
        batch: rows predicted, then learnt, at a time.
        refreshes: see :meth:`Refresh.parse`.
        seeds: runs of each.
        refit_every: rows between two refits of the user state's item factors.
    """
    refreshes = list(dict.fromkeys(refreshes))
    policies = tuple(Refresh.parse(text) for text in refreshes)
    contenders = {name: contender(name) for name in models if name != STACKED}
    if refreshes and STACKED in models:
        raise ConfigurationError(
            f"--refresh is not for the model {STACKED}: name others by --model, such as inttower"
        )
    if refit_every is not None and not any(one.state for one in contenders.values()):
        raise ConfigurationError(
            "--refit belongs to the user state, and no --model has one: use for instance"
            f" {models[0]}{WITH_STATE}"
        )
    session = Session("online", options)
    data = LogRows(*session.open())

    def stacked(warm_up: float, seed: int) -> Unit:
        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            stream = StackedStream(data, StackedProtocol(warm_up), seed, say)
            yield from measured(stream.run(), data)

        return Unit(
            title=f"{_title(STACKED)}, warm-up {warm_up:.0%}, seed {seed}",
            key={"model": STACKED, "warm_up": warm_up, "seed": seed},
            count=SLICES * len(STACKED_MODES),
            measure=measure,
        )

    def unit(name: str, warm_up: float, seed: int) -> Unit:
        if name == STACKED:
            return stacked(warm_up, seed)
        protocol = Protocol(warm_up, batch, policies, refit_every=refit_every)

        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            outcome = run(
                lambda spec: contenders[name].make(spec, seed),
                data,
                protocol,
                seed=seed,
                state=contenders[name].state,
                report=say,
            )
            yield from measured(outcome, data)

        return Unit(
            title=f"{contenders[name].title}, warm-up {warm_up:.0%}, seed {seed}",
            key={
                "model": name,
                "warm_up": warm_up,
                "batch": batch,
                "refreshes": ",".join(refreshes),
                "refit": refit_every,
                "seed": seed,
            },
            count=SLICES * (len(MODES) + len(policies)),
            measure=measure,
        )

    units = [unit(n, w, s) for w in warm_ups for n in models for s in range(seeds)]
    rows = session.measure(units)
    session.finish(rows, _table(rows), _figure(rows))
    return rows


def _title(name: str) -> str:
    return "default" if name == STACKED else contender(name).title


def _series(rows: Sequence[Row]) -> dict[tuple[float, str, str], list[Row]]:
    """The seeds of each (warm-up, model, mode), over one slice."""
    series: dict[tuple[float, str, str], list[Row]] = {}
    for row in rows:
        name = (row.key["warm_up"], row.key["model"], row.key["mode"])
        series.setdefault(name, []).append(row)
    return series


def _part(rows: Sequence[Row], wanted: Mapping[str, str]) -> list[Row]:
    return [r for r in rows if wanted.items() <= dict(r.key).items()]


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="predict, then learn")
    for column in ("warm-up", "model", "mode", "rows", *_FIGURES.values()):
        table.add_column(column)
    for (warm_up, model, mode), seeds in _series(_part(rows, OVERALL)).items():
        table.add_row(
            f"{warm_up:.0%}",
            _title(model),
            mode,
            str(seeds[0].figures["rows"]),
            *(spread_of(seeds, name) for name in _FIGURES),
        )
    return table


def _figure(rows: Sequence[Row]) -> Figure:
    """Plot AUC by tenths of the stream (left) and by the user's impressions so far (right)."""
    warm_ups = sorted({r.key["warm_up"] for r in rows})
    figure = Figure(figsize=(12, 4.5 * len(warm_ups)), layout="constrained")
    panels = figure.subplots(len(warm_ups), 2, squeeze=False, sharey="row")
    for warm_up, (left, right) in zip(warm_ups, panels, strict=True):
        here = [r for r in rows if r.key["warm_up"] == warm_up]
        for panel, by in ((left, "tenth"), (right, "user's impressions")):
            groups = list(dict.fromkeys(r.key["group"] for r in _part(here, {"by": by})))
            for (_, model, mode), seeds in _series(_part(here, {"by": by})).items():
                means = [
                    mean_of(_part(seeds, {"group": group}), "auc", missing=float("nan"))
                    for group in groups
                ]
                panel.plot(groups, means, marker=".", label=f"{_title(model)}, {mode}")
            panel.set(xlabel=f"{by} of the stream" if by == "tenth" else by)
            panel.grid(alpha=0.3)
        left.set(ylabel="AUC", title=f"behind a warm-up of {warm_up:.0%}")
        right.legend(fontsize="x-small")
    return figure
