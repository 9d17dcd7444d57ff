"""Reading CSV files that are too large to be held as texts.

Arrow reads the file in blocks and finds the distinct texts of each column. Only these become Python
objects, and only they are checked and parsed, once each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv

from settings.errors import LogFileError
from streaming.logs.outcomes import Coded, Int32Array
from streaming.logs.text_tables import Int64Array, reading

_T = TypeVar("_T")

# bytes of a file that are read at a time
_BLOCK = 1 << 23
# 1995: nobody rated or clicked earlier, and a time cut short by a digit lies far below
_TIMES = (788_918_400, 4_102_444_800)


class Chunk:
    """Some lines of a file, or all of them.

    Args:
        path: the file.
        batch: Arrow's record batch of the lines; each column is a dictionary of bytes.
        first: number of the first of the lines.
    """

    def __init__(self, path: Path, batch: Any, first: int) -> None:  # noqa: ANN401 - untyped library
        self._path = path
        self._batch = batch
        self._first = first

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def distinct(self, column: str, parse: Callable[[str], _T]) -> tuple[Int32Array, list[_T]]:
        """Each line's code, int32 [n], and what the text of each code means.

        Args:
            column: which.
            parse: from text to meaning; raises ValueError with the end of the sentence
                "'…' is not …".

        Raises:
            LogFileError: of the first text that cannot be parsed, with its line and column.
        """
        encoded = self._batch.column(column)
        codes = encoded.indices.to_numpy()
        values = []
        for code, raw in enumerate(encoded.dictionary.to_pylist()):
            try:
                values.append(parse(raw.decode()))
            except ValueError as error:
                row = int(np.argmax(codes == code))
                raise self.fault(row, column, raw.decode(errors="replace"), str(error)) from error
        return codes, values

    def texts(self, column: str, parse: Callable[[str], str]) -> Coded:
        """A column of texts, with codes in the order of the texts; see :meth:`distinct`.

        A code means the same text in this chunk only.
        """
        codes, texts = self.distinct(column, parse)
        order = sorted(range(len(texts)), key=texts.__getitem__)
        rank = np.empty(len(texts), np.int32)
        rank[order] = np.arange(len(texts), dtype=np.int32)
        return Coded(rank[codes], [texts[i] for i in order])

    def integers(self, column: str, parse: Callable[[str], int]) -> Int64Array:
        """A column of whole numbers, int64 [n]; see :meth:`distinct`."""
        codes, values = self.distinct(column, parse)
        return np.array(values, np.int64)[codes]

    def fault(self, row: int, column: str, text: str, what: str) -> LogFileError:
        """The error that names a line of this chunk, a column, and what is wrong there."""
        place = _place(self._path, self._first + row)
        return LogFileError(f"{place}, column {column}: {text[:40]!r} {what}")


def first_cells(path: Path) -> list[str]:
    """The cells of the first line, without blanks around them.

    Raises:
        LogFileError: the file is missing or empty.
    """
    with reading(path), path.open(encoding="utf-8-sig", errors="replace") as file:
        line = file.readline()
    if not line:
        raise LogFileError(f"{path} holds no rows: was the file cut short?")
    return [cell.strip() for cell in line.split(",")]


def expect_header(path: Path, columns: Sequence[str]) -> None:
    """Check that the first line names these columns.

    Raises:
        LogFileError: it does not.
    """
    cells = first_cells(path)
    if cells != list(columns):
        raise LogFileError(
            f"{path}, line 1: the header is {','.join(cells)[:200]!r} instead of"
            f" {','.join(columns)!r}; give the file as it was published"
        )


def read_chunks(path: Path, columns: Sequence[str], *, header: int) -> Iterator[Chunk]:
    """The lines of a comma-separated file, a few hundred thousand at a time.

    Quotes mean nothing: no cell can hold a comma or the end of a line.

    Args:
        path: the file.
        columns: all of its columns, in order.
        header: lines to skip.

    Raises:
        LogFileError: it is missing, holds no rows, or a line has another number of columns.
    """
    first = header + 1
    for batch in _batches(path, columns, header):
        yield Chunk(path, batch, first)
        first += batch.num_rows


def read_whole(path: Path, columns: Sequence[str], *, header: int) -> Chunk:
    """All lines of a comma-separated file, at 4 bytes a cell and each text once.

    See :func:`read_chunks`.
    """
    table = pa.Table.from_batches(_batches(path, columns, header))
    (batch,) = table.unify_dictionaries().combine_chunks().to_batches()
    return Chunk(path, batch, header + 1)


def _batches(path: Path, columns: Sequence[str], header: int) -> Iterator[Any]:
    # the library refuses an empty file too, but says it in its own way
    with reading(path), path.open("rb") as file:
        if not [file.readline() for _ in range(header + 1)][-1]:
            raise LogFileError(f"{path} holds no rows: was the file cut short?")
    uneven: list[Any] = []

    def note(row: Any) -> str:  # noqa: ANN401 - untyped library
        uneven.append(row)
        return "error"

    distinct = pa.dictionary(pa.int32(), pa.binary())
    try:
        with reading(path):
            yield from pa.csv.open_csv(
                str(path),
                # with several threads it cannot number the lines
                pa.csv.ReadOptions(
                    use_threads=False,
                    column_names=list(columns),
                    skip_rows=header,
                    block_size=_BLOCK,
                ),
                pa.csv.ParseOptions(
                    quote_char=False, ignore_empty_lines=False, invalid_row_handler=note
                ),
                pa.csv.ConvertOptions(column_types=dict.fromkeys(columns, distinct)),
            )
    except pa.ArrowInvalid as error:
        if not uneven:
            raise LogFileError(f"{path} is not a table: {error}") from error
        row = uneven[0]
        raise LogFileError(
            f"{_place(path, row.number)}: {row.actual_columns} columns instead of {len(columns)}"
            f" ({', '.join(columns)}): {row.text[:80]!r}"
        ) from error


def _place(path: Path, line: int) -> str:
    with path.open("rb") as file:
        last = line >= sum(1 for _ in file)
    return f"{path}, line {line}{' (the last line: was the file cut short?)' if last else ''}"


def whole(low: int, high: int) -> Callable[[str], int]:
    """Parses whole numbers of a range.

    >>> whole(0, 1)("1")
    1
    """

    def parse(text: str) -> int:
        # of more digits than any bound, and int() would refuse thousands of them in its own words
        if not re.fullmatch(r"-?[0-9]{1,19}", text) or not low <= int(text) <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return int(text)

    return parse


seconds = whole(*_TIMES)


def matching(pattern: str, what: str) -> Callable[[str], str]:
    """Parses texts of a form, to themselves.

    >>> matching("[0-9]+", "a number")("007")
    '007'
    """
    form = re.compile(pattern)

    def parse(text: str) -> str:
        if not form.fullmatch(text):
            raise ValueError(f"is not {what}")
        return text

    return parse
