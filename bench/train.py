"""``bench train``: samples a second that each model learns.

The plain IntTower of :mod:`bench.plain` runs on the same rows in the same run. Each model runs
twice, in turn, and the faster run counts, since the machine may have other work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from bench.bench_models import BFLOAT16, MODELS, contender
from bench.log_rows import LogRows, Rows
from bench.plain import plain_loader, train_plain
from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from bench.summary import mean_of
from inttower.core.batch import Batch, FloatArray, Layout
from inttower.core.contract import Model

PLAIN = "plain PyTorch"
_RUNS = 2
# first steps are not timed: they compile kernels and allocate
_FIRST = 3


def bench_train(
    options: Options, *, models: Sequence[str] | None, batches: Sequence[int], rows: int
) -> list[Row]:
    """Run it.

    Args:
        options: log and files.
        models: names of :func:`bench.bench_models.contender`; None: all, and IntTower+ once
            more with products in bfloat16.
        batches: rows of a step.
        rows: how many rows each learns once (the last ones of the log).
    """
    names = list(models or [*MODELS, f"inttower{BFLOAT16}"])
    for name in names:
        contender(name, in_time=False)
    session = Session("train", options)
    data = LogRows(*session.open())
    taken = np.arange(max(0, len(data) - rows), len(data))
    labels = data.log.labels[taken].astype(np.float32)

    def unit(batch_size: int) -> Unit:
        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            say("encode", 0.0)
            runs = {name: _learner(name, data, taken, labels, batch_size) for name in names}
            runs[PLAIN] = _plain(data, taken, labels, batch_size)
            seconds = dict.fromkeys(runs, float("inf"))
            for turn in range(_RUNS):
                for place, (name, run) in enumerate(runs.items()):
                    say(name, (turn * len(runs) + place) / (_RUNS * len(runs)))
                    start = time.perf_counter()
                    run()
                    seconds[name] = min(seconds[name], time.perf_counter() - start)
            for name, took in seconds.items():
                yield (
                    {"model": name},
                    {
                        "samples_per_second": len(taken) / took,
                        "times_plain": seconds[PLAIN] / took,
                        "rows": len(taken),
                    },
                )

        return Unit(
            title=f"batches of {batch_size}",
            key={
                "models": ",".join(names),
                "batch": batch_size,
                "rows": len(taken),
                "threads": options.threads,
            },
            count=len(names) + 1,
            measure=measure,
        )

    found = session.measure([unit(size) for size in batches])
    session.finish(found, _table(found), _figure(found))
    return found


def _learner(
    name: str, data: LogRows, rows: Rows, labels: FloatArray, batch_size: int
) -> Callable[[], object]:
    model = contender(name, in_time=False).make(data.spec, 0)
    batch = data.encoded(model, rows, admit=True)
    _fit(model, batch.take(slice(0, _FIRST * batch_size)), labels, batch_size)
    return lambda: _fit(model, batch, labels, batch_size)


def _fit(model: Model, batch: Batch, labels: FloatArray, batch_size: int) -> None:
    model.fit(batch, labels[: len(batch)], epochs=1, batch_size=batch_size)


def _plain(data: LogRows, rows: Rows, labels: FloatArray, batch_size: int) -> Callable[[], object]:
    # any model that reads ids can encode the texts
    batch = data.encoded(contender("inttower").make(data.spec, 0), rows, admit=True)
    model, loader = plain_loader(Layout(data.spec), batch, labels, batch_size)
    first = slice(0, _FIRST * batch_size)
    train_plain(*plain_loader(Layout(data.spec), batch.take(first), labels[first], batch_size))
    return lambda: train_plain(model, loader)


def _label(name: str) -> str:
    return name if name == PLAIN else contender(name, in_time=False).title


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="samples learnt a second")
    for column in ("batch", "model", "samples/s", "× plain"):
        table.add_column(column)
    for row in rows:
        table.add_row(
            str(row.key["batch"]),
            _label(row.key["model"]),
            f"{row.figures['samples_per_second']:,.0f}",
            f"{row.figures['times_plain']:.2f}",
        )
    return table


def _figure(rows: Sequence[Row]) -> Figure:
    figure = Figure(figsize=(8, 5), layout="constrained")
    panel = figure.subplots()
    names = list(dict.fromkeys(row.key["model"] for row in rows))
    sizes = sorted({row.key["batch"] for row in rows})
    height = 0.8 / len(sizes)
    for k, size in enumerate(sizes):
        here = [r for r in rows if r.key["batch"] == size]
        speeds = [
            mean_of([r for r in here if r.key["model"] == n], "samples_per_second", missing=0.0)
            for n in names
        ]
        panel.barh(np.arange(len(names)) + k * height, speeds, height, label=f"batches of {size}")
    panel.set_yticks(np.arange(len(names)) + 0.4 - height / 2, [_label(n) for n in names])
    panel.set(xlabel="samples a second")
    panel.grid(alpha=0.3, axis="x")
    panel.legend()
    return figure
