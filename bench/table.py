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
# Table 2 of the IntTower paper (CIKM 2022) as printed: AUC and log loss, by log and model. Its
# protocol leaks (features of the test rows are means of test labels): for comparison only.
_PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    "ml-1m": {
        "lr": (0.8501, 0.4845),
        "two-tower": (0.8697, 0.4559),
        "dat": (0.8712, 0.4556),
        "cold": (0.8836, 0.3297),
        "wide-deep": (0.8820, 0.3344),
        "deepfm": (0.8920, 0.3211),
        "dcn": (0.8964, 0.3151),
        "autoint": (0.8948, 0.3192),
        "inttower-paper": (0.8974, 0.3128),
    },
    "amazon-electronics": {
        "lr": (0.7952, 0.4677),
        "two-tower": (0.8469, 0.4313),
        "dat": (0.8480, 0.4278),
        "cold": (0.8633, 0.3402),
        "wide-deep": (0.8615, 0.3409),
        "deepfm": (0.8643, 0.3405),
        "dcn": (0.8665, 0.3366),
        "autoint": (0.8686, 0.3351),
        "inttower-paper": (0.8696, 0.3309),
    },
    "ali-display-ads": {
        "lr": (0.6496, 0.2350),
        "two-tower": (0.6579, 0.2292),
        "dat": (0.6598, 0.2279),
        "cold": (0.6816, 0.2248),
        "wide-deep": (0.6814, 0.2250),
        "deepfm": (0.6820, 0.2247),
        "dcn": (0.6831, 0.2244),
        "autoint": (0.6867, 0.2238),
        "inttower-paper": (0.6827, 0.2245),
    },
}


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
    published = _PUBLISHED.get(log, {})
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
