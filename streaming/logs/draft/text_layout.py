"""How a separated text is laid out, and whether its first line is data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from settings.errors import LogFileError
from streaming.logs.log_file import TableFiles
from streaming.logs.sources import first_lines, reading, split_line

_SEPARATORS = ("\t", ",", ";", "|", "::")
_LOOKED_AT = 300
_DECODED = 20_000
# one shape a cell, the first that fits
_SHAPES = {
    "number": re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?"),
    "date": re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T]\d{1,2}:\d{2}.*)?"),
    "entries with -0 or -1": re.compile(r"\S+-[01]([ ,;|]\S+-[01])*"),
    "address": re.compile(r"https?://.*"),
    "list": re.compile(r"\[.*\]|\{.*\}"),
}
_ID = re.compile(r"([A-Za-z]+[_-]?)\d+")


@dataclass(frozen=True, slots=True)
class TextLayout:
    """What a TOML must say of a text without a header.

    Attributes:
        separator: between two cells.
        quote: empty where quotes mean nothing.
        width: how many columns.
    """

    separator: str
    quote: str
    width: int

    def table(self, path: Path, encoding: str, names: Sequence[str] | None = None) -> TableFiles:
        """The file as a declared table; the columns are c1, c2, … unless they have names."""
        return TableFiles(
            files=str(path),
            encoding=encoding,
            separator=self.separator,
            quote=self.quote,
            header=False,
            columns=list(names or (f"c{at}" for at in range(1, self.width + 1))),
        )


def encoding_of(path: Path) -> str:
    """utf-8, or latin-1 if the first lines of a text are not UTF-8.

    Raises:
        LogFileError: the file cannot be read.
    """
    with reading(str(path)):
        broken = any("\ufffd" in line for line in first_lines(path, "utf-8", _DECODED))
    return "latin-1" if broken else "utf-8"


def layout_without_header(path: Path) -> TextLayout | None:
    """The layout of a text whose first line is data; None: the first line names the columns.

    Raises:
        LogFileError: the file cannot be read or is empty.
    """
    with reading(str(path)):
        lines = [line for line in first_lines(path, "utf-8", _LOOKED_AT) if line.strip()]
    if not lines:
        raise LogFileError(f"{path} holds no rows: was the file cut short?")
    separator = max(_SEPARATORS, key=lambda one: _worth(lines, one))
    rows = [split_line(line, separator, '"') for line in lines]
    quote = '"'
    plain = [line.split(separator) for line in lines]
    # a title that begins with a quoted word: here quotes are a part of the text
    if len({len(row) for row in plain}) == 1 and any(
        cell.startswith('"') and (len(cell) == 1 or not cell.endswith('"'))
        for row in plain
        for cell in row
    ):
        rows, quote = plain, ""
    if not first_row_is_data(rows):
        return None
    return TextLayout(separator, quote, len(rows[0]))


def _worth(lines: Sequence[str], separator: str) -> tuple[float, int]:
    """How well a separator cuts lines into equally many cells, more than one."""
    widths = Counter(len(split_line(line, separator, '"')) for line in lines)
    width, count = widths.most_common(1)[0]
    return (count / len(lines) if width > 1 else 0.0), width


def first_row_is_data(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row looks like those below it, and not like names of columns.

    A cell that has the shape of its column (number, date, list, address, id) or that comes again
    below speaks for data, and so do two equal cells; a cell that differs from the shape of its
    column speaks for a header.

    >>> first_row_is_data([["user", "time"], ["u1", "17"], ["u2", "18"]])
    False
    >>> first_row_is_data([["u1", "17"], ["u2", "18"], ["u3", "19"]])
    True
    """
    first, below = rows[0], rows[1:]
    if list(first) == [str(at) for at in range(len(first))]:
        return False  # as Pandas numbers columns without names
    names = [cell for cell in first if cell.strip()]
    like = len(names) - len(set(names))
    unlike = 0
    for at, cell in enumerate(first):
        cells = [row[at] for row in below if at < len(row) and row[at].strip()]
        if not cell.strip() or not cells:
            continue
        shape, count = Counter(map(_shape, cells)).most_common(1)[0]
        if shape and count >= 0.9 * len(cells):
            same = _shape(cell) == shape
            like, unlike = like + same, unlike + (not same)
        elif cell in cells:
            like += 1
    return like > unlike


def _shape(cell: str) -> str:
    text = cell.strip()
    for name, pattern in _SHAPES.items():
        if pattern.fullmatch(text):
            return name
    found = _ID.fullmatch(text)
    return found[1] if found else ""
