"""What every bench shares: its log, its file of results, its progress bars and its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from bench.results import Key, Options, Results, Row
from features.declaration import Declaration
from features.generate import generated_declaration
from features.log_arrays import LogArrays, load
from streaming.logs.choose import find_log

Report = Callable[[str, float], None]
Measurements = Iterable[tuple[Key, Mapping[str, Any]]]


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work that is measured whole or not at all.

    Args:
        title: shown beside the progress bar.
        key: what all its rows have in common.
        count: how many rows it gives.
        measure: does it; gives each row's further key and its figures.
    """

    title: str
    key: dict[str, Any]
    count: int
    measure: Callable[[Report], Measurements]


class Session:
    """One run of one bench.

    Args:
        bench: its name.
        options: see there.
    """

    def __init__(self, bench: str, options: Options) -> None:
        self.bench = bench
        self.options = options
        self.results = Results(options.out / f"{bench}-{Path(options.log).stem}.jsonl", bench)
        folder = str(options.path.resolve()) if options.path else None
        self.key = {"log": options.log, "path": folder, "sample": options.sample}

    def open(self) -> tuple[Declaration, LogArrays]:
        """The log and its declaration."""
        source = find_log(self.options.log, self.options.path)
        declared = generated_declaration(source)
        with _progress(self.options.console) as progress:
            task = progress.add_task(f"reading {source.name}", total=1.0)
            log = load(
                source,
                declared,
                self.options.sample,
                lambda part: progress.update(task, completed=part),
            )
        return declared, log

    def measure(self, units: Sequence[Unit]) -> list[Row]:
        """Measure what is not in the file yet; all rows of these units."""
        console = self.options.console
        todo = [u for u in units if not self.results.done({**self.key, **u.key}, u.count)]
        if len(todo) < len(units):
            console.print(f"{len(units) - len(todo)} of {len(units)} done: {self.results.path}")
        with _progress(console) as progress:
            whole = progress.add_task(self.bench, total=len(todo))
            for unit in todo:
                task = progress.add_task(unit.title, total=1.0)
                say = _reporter(progress, task, unit.title)
                rows = [
                    ({**self.key, **unit.key, **key}, figures) for key, figures in unit.measure(say)
                ]
                self.results.add(rows)
                progress.update(task, visible=False)
                progress.advance(whole)
        return [row for u in units for row in self.results.rows({**self.key, **u.key})]

    def finish(self, rows: Sequence[Row], table: Table, figure: Figure) -> None:
        """Show the table, write the plot, and the JSON file that was asked for."""
        options = self.options
        options.console.print(table)
        part = "" if options.sample == 1 else f"-{options.sample:g}"
        plot = self.results.path.with_name(f"{self.results.path.stem}{part}.png")
        figure.savefig(plot, dpi=150)
        options.console.print(f"rows: {self.results.path}\nplot: {plot}")
        if options.json_file is not None:
            found = {**self.key, "bench": self.bench, "rows": [row.to_json() for row in rows]}
            options.json_file.parent.mkdir(parents=True, exist_ok=True)
            options.json_file.write_text(json.dumps(found, indent=1) + "\n")


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )


def _reporter(progress: Progress, task: TaskID, title: str) -> Report:
    def report(what: str, part: float) -> None:
        progress.update(task, completed=part, description=f"{title}: {what}")

    return report
