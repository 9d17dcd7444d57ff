"""``bench table``: all models on a random 80/20 split.

Without the leak (:mod:`bench.split`), and, marked as leaky and for comparison only, by the
published protocol with the paper's own figures. A random split mixes past and future: what a model
would have done is measured by :mod:`bench.predict_then_learn`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from matplotlib.figure import Figure
from rich.table import Table

from bench.bench_models import MODELS, contender
from bench.cost import parameters, ranking_cost
from bench.log_rows import chunks, part_of
from bench.published_figures import PUBLISHED
from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from bench.split import PROTOCOLS, ProtocolName, Split, SplitData
from bench.summary import mean_of, spread_of
from features.declaration import Declaration
from features.log_arrays import LogArrays
from inttower.core.batch import Batch
from inttower.core.contract import Columns, Model
from inttower.evaluate import figures
from settings.errors import ConfigurationError

# rows encoded at a time
_CHUNK = 65_536
_LEAKY = "leaky"


def bench_table(
    options: Options,
    *,
    models: Sequence[str] | None,
    protocols: Sequence[str],
    seeds: int,
) -> list[Row]:
    """Run it.

    Args:
        options: log and files.
        models: names of :data:`bench.bench_models.MODELS`; None: all.
        protocols: of :data:`bench.split.PROTOCOLS`.
        seeds: runs of each, each with another split.
    """
    if wrong := set(protocols) - set(PROTOCOLS):
        raise ConfigurationError(f"--protocol {wrong.pop()}: choose {' or '.join(PROTOCOLS)}")
    names = list(models or MODELS)
    for name in names:
        contender(name, in_time=False)
    session = Session("table", options)
    declared, log = session.open()
    units = [
        _unit(declared, log, name, cast(ProtocolName, protocol), seed)
        for protocol in protocols
        for seed in range(seeds)
        for name in names
    ]
    rows = session.measure(units)
    session.finish(rows, _table(rows, options.log), _figure(rows))
    return rows


def _unit(
    declared: Declaration, log: LogArrays, name: str, protocol: ProtocolName, seed: int
) -> Unit:
    def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
        say("features", 0.0)
        data = SplitData(declared, log, protocol)
        split = Split.random(len(log), seed)
        train, test = data.columns(split, log.labels)
        model = contender(name).make(data.spec, seed)
        start = time.perf_counter()
        batch = _encoded(model, train, len(split.train), admit=True)
        model.fit(
            batch,
            log.labels[split.train],
            weights=log.weights[split.train],
            seed=seed,
            progress=lambda part: say("train", part),
        )
        seconds = time.perf_counter() - start
        say("test", 0.0)
        logits = model.predict(_encoded(model, test, len(split.test), admit=False))
        users = log.impressions.users[split.test]
        yield (
            {},
            {
                **figures(logits, log.labels[split.test], users).to_json(),
                "parameters": parameters(model),
                "train_seconds": seconds,
                **ranking_cost(model, test),
            },
        )

    return Unit(
        title=f"{contender(name).title}, {protocol}, seed {seed}",
        key={"model": name, "protocol": protocol, "seed": seed},
        count=1,
        measure=measure,
    )


def _encoded(model: Model, columns: Columns, count: int, *, admit: bool) -> Batch:
    parts = [model.encode(part_of(columns, part), admit) for part in chunks(count, _CHUNK)]
    return Batch.concat(parts)


def _series(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    series: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        series.setdefault((row.key["protocol"], row.key["model"]), []).append(row)
    return series


def _table(rows: Sequence[Row], log: str) -> Table:
    table = Table(title="random 80/20 split; the leaky protocol is for comparison only")
    for column in (
        "protocol",
        "model",
        "AUC",
        "log loss",
        "GAUC",
        "parameters",
        "train s",
        "µs/item",
        "floats/item",
        "paper (leaky)",
    ):
        table.add_column(column)
    published = PUBLISHED.get(log, {})
    for (protocol, model), seeds in _series(rows).items():
        paper = published.get(model) if protocol == _LEAKY else None
        table.add_row(
            protocol,
            model,
            *(spread_of(seeds, name) for name in ("auc", "logloss", "gauc")),
            f"{mean_of(seeds, 'parameters', missing=0):,.0f}",
            f"{mean_of(seeds, 'train_seconds', missing=0):.1f}",
            f"{mean_of(seeds, 'us_per_item', missing=0):.3f}",
            str(seeds[0].figures.get("floats_per_item", "–")),
            "–" if paper is None else f"{paper[0]:.4f} / {paper[1]:.4f}",
        )
    return table


def _figure(rows: Sequence[Row]) -> Figure:
    """Plot AUC of each model against its cost a candidate."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    for protocol in dict.fromkeys(r.key["protocol"] for r in rows):
        points = [
            (
                mean_of(seeds, "auc", missing=float("nan")),
                mean_of(seeds, "us_per_item", missing=float("nan")),
                model,
            )
            for (of, model), seeds in _series(rows).items()
            if of == protocol
        ]
        panel.scatter([p[0] for p in points], [p[1] for p in points], label=protocol)
        for auc, cost, title in points:
            panel.annotate(title, (auc, cost), fontsize="x-small")
    panel.set(xlabel="AUC", ylabel="µs a candidate, one core", yscale="log")
    panel.grid(alpha=0.3)
    panel.legend()
    return figure
