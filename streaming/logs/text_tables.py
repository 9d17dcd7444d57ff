"""Reading the text tables that logs come in, with errors that name file, line and column."""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from settings.errors import LogFileError

_WHOLE_NUMBER = re.compile(r"(0|[1-9][0-9]*)\Z")
_NO_WHOLE_NUMBER = re.compile(r"[^0-9\t\n]|(?:^|[\t\n])0[0-9]")

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class IntegerColumn:
    """A column of whole numbers and the range that they can have."""

    name: str
    low: int
    high: int


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """While a file is read: say which one it was that failed.

    Raises:
        LogFileError: it is missing, unreadable, cut short (gzip) or not of its encoding.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise LogFileError(
            f"{path} is missing: is {path.parent} the folder of the unpacked log?"
        ) from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise LogFileError(f"{path} cannot be read: {error}") from error


def read_text(path: Path, encoding: str) -> str:
    """The whole file.

    Raises:
        LogFileError: it is missing, unreadable or not of this encoding.
    """
    with reading(path):
        return path.read_text(encoding=encoding)


def read_integers(
    path: Path, columns: Sequence[IntegerColumn], *, separator: str, header: int = 0
) -> Int64Array:
    """A table of whole numbers.

    Args:
        path: the file; ASCII.
        columns: all of its columns, in order.
        separator: between two columns; may be longer than a character.
        header: lines to skip.

    Returns:
        [rows, columns].

    Raises:
        LogFileError: a line has too few or too many columns, or a value that cannot be.
    """
    lines = read_text(path, "latin-1").splitlines()[header:]
    if not lines:
        raise LogFileError(f"{path} holds no rows")
    text = "\n".join(line.replace(separator, "\t") for line in lines)
    # loadtxt would cut 3.5 down to 3, and 010 would become the same id as 10
    if _NO_WHOLE_NUMBER.search(text):
        raise _first_fault(path, lines, columns, separator, header)
    try:
        table = np.loadtxt(
            io.StringIO(text), dtype=np.int64, delimiter="\t", comments=None, ndmin=2
        )
        sound = table.shape == (len(lines), len(columns)) and all(
            table[:, i].min() >= column.low and table[:, i].max() <= column.high
            for i, column in enumerate(columns)
        )
    except ValueError:
        sound = False
    if not sound:
        # the quick reading above cannot say where: look again, slowly
        raise _first_fault(path, lines, columns, separator, header)
    return table


def _first_fault(
    path: Path, lines: list[str], columns: Sequence[IntegerColumn], separator: str, header: int
) -> LogFileError:
    for number, line in enumerate(lines, start=header + 1):
        cells = line.split(separator)
        last = " (the last line: was the file cut short?)" if number == len(lines) + header else ""
        if len(cells) != len(columns):
            return LogFileError(
                f"{path}, line {number}{last}: {len(cells)} columns instead of {len(columns)}"
                f" ({', '.join(column.name for column in columns)}): {line[:80]!r}"
            )
        for column, cell in zip(columns, cells, strict=True):
            if not _WHOLE_NUMBER.match(cell) or not column.low <= int(cell) <= column.high:
                return LogFileError(
                    f"{path}, line {number}{last}, column {column.name}: {cell[:40]!r} is not a"
                    f" whole number from {column.low} to {column.high}"
                )
    return LogFileError(f"{path} is not a table of {len(columns)} whole numbers a line")


def read_rows(
    path: Path, columns: int, *, separator: str, encoding: str, header: int = 0
) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each line of a table of texts.

    Raises:
        LogFileError: a line has another number of columns.
    """
    # not splitlines: a title may hold a character that it takes for the end of a line
    lines = read_text(path, encoding).removesuffix("\n").split("\n")
    for number, line in enumerate(lines[header:], start=header + 1):
        cells = line.removesuffix("\r").split(separator)
        if len(cells) != columns:
            raise LogFileError(
                f"{path}, line {number}: {len(cells)} columns instead of {columns}: {line[:80]!r}"
            )
        yield number, cells
