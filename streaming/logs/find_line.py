"""Finds the line of a text file that an unreadable row came from."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streaming.logs.sources import Source, first_lines, split_line

# lines of a file that are searched; a bad row further on is reported without its line
_SEARCHED = 2_000_000
_Cells = Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was skipped.

    Attributes:
        file: its file.
        line: from 1; 0 if unknown.
        reason: why it was skipped.
        column: the faulty column, if it is one.
        cells: its cells by column; or the whole line, without a name.
    """

    file: str
    line: int
    reason: str
    column: str
    cells: _Cells

    def __str__(self) -> str:
        """One line for people."""
        place = f", line {self.line}" if self.line else ""
        column = f", column {self.column}" if self.column else ""
        held = ", ".join(f"{k} = {v}" if k else str(v) for k, v in self.cells.items())
        return f"{self.file}{place}{column}: {self.reason}: {held[:160]!r}"


def find_lines(
    source: Source, rows: Sequence[BadRow], encoding: str, missing: Sequence[str]
) -> list[BadRow]:
    """The rows with file and line, where they can be found."""
    if source.format == "parquet" or not rows:
        return list(rows)
    open_rows = list(rows)
    found = []
    for number, path in enumerate(source.files):
        if not open_rows:
            break
        reader = _json_cells if source.format == "jsonl" else _csv_cells(*source.layouts[number])
        found += _in_file(path, open_rows, encoding, reader, missing)
    return found + open_rows


def _in_file(
    path: Path,
    open_rows: list[BadRow],
    encoding: str,
    reader: Callable[[str], _Cells | None],
    missing: Sequence[str],
) -> list[BadRow]:
    """Rows of this file; removes them from ``open_rows``."""
    found = []
    for number, line in enumerate(first_lines(path, encoding, _SEARCHED), start=1):
        # a cell's text is in its line: only such lines are split
        near = [row for row in open_rows if _longest(row.cells) in line]
        if not near or not line:
            continue
        cells = reader(line)
        for row in near:
            if _same(row.cells, cells, missing):
                open_rows.remove(row)
                found.append(replace(row, file=str(path), line=number, cells={"": line[:120]}))
                break
        if not open_rows:
            break
    return found


def _longest(cells: _Cells) -> str:
    return max((cell or "" for cell in cells.values()), key=len)[:100]


def _same(wanted: _Cells, cells: _Cells | None, missing: Sequence[str]) -> bool:
    """Whether a line holds these cells; a line that cannot be split gave no row."""
    if cells is None:
        return not any(wanted.values())
    for name, text in wanted.items():
        # a derived column is in no line, nor is a missing value of JSON
        there = cells.get(name)
        if there is not None and there != text and not (text is None and there in missing):
            return False
    return any(wanted.values()) or all(cells.get(name) is None for name in wanted)


def _csv_cells(
    separator: str, quote: str, columns: Sequence[str]
) -> Callable[[str], _Cells | None]:
    def read(line: str) -> _Cells | None:
        cells = split_line(line, separator, quote)
        return dict(zip(columns, cells, strict=True)) if len(cells) == len(columns) else None

    return read


def _json_cells(line: str) -> _Cells | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict):
        return None
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items() if v is not None}
