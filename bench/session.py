"""What every bench shares: its log, its file of results, its progress bars and its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from streaming.logs.own_log import OwnLog

Report = Callable[[str, float], None]
Measurements = Iterable[tuple[Key, Mapping[str, Any]]]
# among the figures of a log whose negatives are drawn: they do not compare with those of others
SAMPLED = "sampled_negatives"


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of work that is measured whole or not at all.

    Args:
        title: shown with the progress bar.
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
        self._sampled = False
        self.key = {"log": options.log, "path": folder, "sample": options.sample}

    def open(self) -> tuple[Declaration, LogArrays]:
        """The log and its declaration."""
        source = find_log(self.options.log, self.options.path)
        self.note_sampling(source)
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

    def note_sampling(self, log: OwnLog) -> None:
        """All figures will say whether the negatives of this log are sampled."""
        self._sampled = log.declared.negatives is not None

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
                    ({**self.key, **unit.key, **key}, self._marked(figures))
                    for key, figures in unit.measure(say)
                ]
                self.results.add(rows)
                progress.update(task, visible=False)
                progress.advance(whole)
        found = [row for u in units for row in self.results.rows({**self.key, **u.key})]
        # a file may hold rows that were measured before they were marked
        return [replace(row, figures=self._marked(row.figures)) for row in found]

    def _marked(self, figures: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**figures, SAMPLED: True} if self._sampled else figures

    def finish(self, rows: Sequence[Row], table: Table, figure: Figure) -> None:
        """Show the table, write the plot, and the JSON file that was asked for."""
        options = self.options
        logs = sampled_logs(rows)
        if logs:
            said = f"negatives are sampled: {', '.join(logs)}"
            table.title = f"{table.title}; {said}" if table.title else said
            figure.suptitle(said, fontsize="small")
        options.console.print(table)
        part = "" if options.sample == 1 else f"-{options.sample:g}"
        plot = self.results.path.with_name(f"{self.results.path.stem}{part}.png")
        figure.savefig(plot, dpi=150)
        options.console.print(f"rows: {self.results.path}\nplot: {plot}")
        if options.json_file is not None:
            found = {
                **self.key,
                "bench": self.bench,
                SAMPLED: logs,
                "rows": [row.to_json() for row in rows],
            }
            options.json_file.parent.mkdir(parents=True, exist_ok=True)
            options.json_file.write_text(json.dumps(found, indent=1) + "\n")


def sampled_logs(rows: Iterable[Row]) -> list[str]:
    """The logs of rows whose negatives were drawn and not shown, each once.

    >>> sampled_logs([Row("b", {"log": "globo"}, {SAMPLED: True}), Row("b", {"log": "ml-1m"}, {})])
    ['globo']
    """
    return sorted({Path(str(row.key["log"])).stem for row in rows if row.figures.get(SAMPLED)})


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
