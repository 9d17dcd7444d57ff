"""The line of a text file that a row came from: looked for only when a row is unreadable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streaming.logs.sources import Source, first_lines

# lines of a file that are searched; a bad row further on is told without its line
_SEARCHED = 2_000_000


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was skipped.

    Attributes:
        file: where.
        line: from 1; 0 where it is not known.
        reason: why.
        column: of what, where one column is to blame.
        cells: what it holds, shortened.
    """

    file: str
    line: int
    reason: str
    column: str
    cells: list[str]

    def __str__(self) -> str:
        """One line for people."""
        place = f", line {self.line}" if self.line else ""
        column = f", column {self.column}" if self.column else ""
        return f"{self.file}{place}{column}: {self.reason}: {' | '.join(self.cells)[:160]!r}"


def find_lines(source: Source, rows: Sequence[BadRow], encoding: str = "utf-8") -> list[BadRow]:
    """The same rows with their file and line, where these can be found."""
    if source.format == "parquet" or not rows:
        return list(rows)
    open_rows = list(rows)
    found = []
    for path in source.files:
        if open_rows:
            found += _in_file(path, open_rows, encoding)
    return found + open_rows


def _in_file(path: Path, open_rows: list[BadRow], encoding: str) -> list[BadRow]:
    """Rows of this file; they are taken off ``open_rows``."""
    found = []
    for number, line in enumerate(first_lines(path, encoding, _SEARCHED), start=1):
        for row in [one for one in open_rows if _holds(line, one.cells)]:
            open_rows.remove(row)
            found.append(replace(row, file=str(path), line=number, cells=[line[:120]]))
        if not open_rows:
            break
    return found


def _holds(line: str, cells: Sequence[str]) -> bool:
    """Whether a line has these cells, in any order.

    >>> _holds("7,x,978300761", ["x", "978300761"]), _holds("7,y", ["x"])
    (True, False)
    """
    return bool(cells) and all(cell[:200] in line for cell in cells)
