"""``bench sync``: AUC against the age of the weights that serve.

One online model learns the stream. Copies of it serve, each renewed at another interval. With ids
only, weights hold all that is learnt about new users and items; with live features the counters
hold most of it, however old the weights are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from bench.auc_series import auc_figure, auc_table, by_model
from bench.bench_models import contender
from bench.log_rows import LogRows
from bench.predict_then_learn import Protocol, overall, run
from bench.refresh import Refresh
from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from inttower.core.spec import FeatureSpec

# oldest first, as in the report
AGES = ["7d", "1d", "5h", "1h", "30min"]
INPUTS = ("ids only", "live features")


def bench_sync(
    options: Options,
    *,
    models: Sequence[str],
    warm_up: float,
    batch: int,
    refreshes: Sequence[str],
    seeds: int,
) -> list[Row]:
    """Run it; the arguments are those of :func:`bench.online.bench_online`."""
    refreshes = list(dict.fromkeys(refreshes))
    policies = tuple(Refresh.parse(text) for text in refreshes)
    contenders = {name: contender(name) for name in models}
    session = Session("sync", options)
    data = LogRows(*session.open())
    names = ["frozen weights", *(p.name for p in policies), "online"]

    def unit(name: str, inputs: str, seed: int) -> Unit:
        spec = ids_only(data.spec) if inputs == "ids only" else data.spec
        protocol = Protocol(warm_up, batch, policies, frozen_features=False, spec=spec)

        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            outcome = run(
                lambda fields: contenders[name].make(fields, seed),
                data,
                protocol,
                seed=seed,
                state=contenders[name].state,
                report=say,
            )
            for mode, figures in overall(outcome, data):
                yield {"weights": mode}, figures

        return Unit(
            title=f"{contenders[name].title}, {inputs}, seed {seed}",
            key={
                "model": name,
                "inputs": inputs,
                "warm_up": warm_up,
                "batch": batch,
                "refreshes": ",".join(refreshes),
                "seed": seed,
            },
            count=len(names),
            measure=measure,
        )

    units = [
        unit(name, inputs, seed)
        for name in models
        for inputs in INPUTS
        if inputs != "ids only" or not (contenders[name].needs_dense or contenders[name].state)
        for seed in range(seeds)
    ]
    rows = session.measure(units)
    session.finish(rows, _table(rows, names), _figure(rows, names))
    return rows


def ids_only(spec: FeatureSpec) -> FeatureSpec:
    """The ids and static fields of a spec: what events do not change."""
    return FeatureSpec(tuple(f for f in spec.fields if f.kind in {"sparse", "multi"}))


def _table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    series = by_model(rows, "inputs", "weights")
    title = "AUC by how often the served weights are renewed"
    return auc_table(title, "inputs", series, names, _label)


def _figure(rows: Sequence[Row], names: Sequence[str]) -> Figure:
    series = by_model(rows, "inputs", "weights")
    return auc_figure("served weights are renewed", series, names, _label)


def _label(weights: str) -> str:
    return {"frozen weights": "never", "online": "every batch"}.get(weights, weights)
