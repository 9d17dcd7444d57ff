"""Results as JSON lines, a row a measurement, so that a stopped bench can resume.

A row is ``{"bench": …, "key": {…}, "figures": {…}}``. The key names everything that the figures
depend on, except the machine and its threads. A measurement whose key exists is not repeated; of
two rows with one key the later counts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from settings.errors import ConfigurationError

Key = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    bench: str
    key: Key
    figures: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Bench and key as one text."""
        return json.dumps([self.bench, dict(self.key)], sort_keys=True)

    def to_json(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {"bench": self.bench, "key": dict(self.key), "figures": dict(self.figures)}


@dataclass(frozen=True, slots=True)
class Options:
    """Where a bench reads and writes.

    Args:
        log: name of the log.
        path: folder of its files; None: the fetched ML-100K.
        sample: first part of the log's events that is read.
        out: folder of results.
        json_file: also write all rows there, as one JSON object.
        threads: of torch.
        console: to talk to.
    """

    log: str
    path: Path | None
    sample: float
    out: Path
    json_file: Path | None
    threads: int
    console: Console


class Results:
    """The measurements of one bench in a file.

    Args:
        path: the file; it and its folder are made when the first row is added.
        bench: the bench's name.

    Raises:
        ConfigurationError: the file holds something else.
    """

    def __init__(self, path: Path, bench: str) -> None:
        self.path = path
        self.bench = bench
        self._rows: dict[str, Row] = {}
        if path.exists():
            self._read()

    def _read(self) -> None:
        text = self.path.read_text()
        whole, _, torn = text.rpartition("\n")
        if torn:  # a row that was being written when the bench was stopped
            self.path.write_text(whole + "\n" if whole else "")
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = Row(**json.loads(line))
            except (json.JSONDecodeError, TypeError) as error:
                raise ConfigurationError(
                    f"{self.path}, line {number}: not a row of a bench ({error}); give another"
                    " --out, or move the file away"
                ) from error
            self._rows[row.name] = row

    def done(self, key: Key, count: int = 1) -> bool:
        """Whether all ``count`` rows are there whose keys say this (they may say more)."""
        return len(self.rows(key)) >= count

    def rows(self, key: Key | None = None) -> list[Row]:
        """The rows whose key says at least this."""
        wanted = dict(key or {}).items()
        rows = self._rows.values()
        return [r for r in rows if r.bench == self.bench and wanted <= dict(r.key).items()]

    def add(self, measurements: Iterable[tuple[Key, Mapping[str, Any]]]) -> list[Row]:
        """Append measurements; they are on disk when this returns."""
        rows = [Row(self.bench, dict(key), dict(figures)) for key, figures in measurements]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write("".join(json.dumps(row.to_json()) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
        self._rows |= {row.name: row for row in rows}
        return rows
