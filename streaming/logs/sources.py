"""The files of a table as a relation that DuckDB reads: CSV, JSON lines or Parquet.

Every column of a CSV or of JSON lines is read as text, so that ids keep their leading zeros. Where
a column is used as a number, it is converted, and a cell that is none makes the row unreadable.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import itertools
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from settings.errors import ConfigurationError, LogFileError
from streaming.kafka.java import cache_folder
from streaming.logs.log_file import TableFiles
from streaming.logs.rules import check_columns, literal, quoted

# rows that are sampled to find a column's type
SAMPLE_ROWS = 20_000
_SEPARATORS = (",", ";", "\t", "|", "::")
_FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".dat": "csv", ".data": "csv"}
_FORMATS |= {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
# a longer line means another kind of file
_LONGEST_LINE = 16_000_000
# no JSON text holds this character, so that a line is one cell
_NEVER = "\x1f"
# reason for a line that is not JSON
BAD = "__bad"


@dataclass(frozen=True, slots=True)
class Source:
    """A table as DuckDB reads it.

    Attributes:
        sql: a query of all its columns.
        columns: name to DuckDB's type.
        files: of the table, sorted.
        format: csv, jsonl or parquet.
        layouts: of a CSV, a file each: separator, quote and the names of the columns.
    """

    sql: str
    columns: dict[str, str]
    files: tuple[Path, ...]
    format: str
    layouts: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    @property
    def title(self) -> str:
        """The files in a message."""
        more = f" and {len(self.files) - 1} more" if len(self.files) > 1 else ""
        return f"{self.files[0]}{more}"


@contextmanager
def reading(place: str) -> Iterator[None]:
    """While DuckDB reads: say which files they were.

    Raises:
        LogFileError: they cannot be read.
    """
    try:
        yield
    except (duckdb.Error, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())[:600]
        raise LogFileError(
            f"{place} cannot be read ({text}); was a file cut short, or is it of another format,"
            " separator or encoding than the declaration says?"
        ) from error


def find_files(table: TableFiles, folder: Path, place: str) -> tuple[Path, ...]:
    """The files that the patterns name, sorted.

    Raises:
        LogFileError: a pattern matches no file.
    """
    found: dict[Path, None] = {}
    for pattern in table.patterns:
        full = str(folder / Path(pattern).expanduser())
        # an absolute pattern is no pattern for Path.glob
        matches = map(Path, glob.glob(full, recursive=True))  # noqa: PTH207
        there = sorted(path for path in matches if path.is_file())
        if not there:
            what = "no file matches it" if glob.has_magic(full) else "there is no such file"
            raise LogFileError(
                f"{full} is missing: {what}; is {folder} the folder of the unpacked log?"
                f" ({place}.files, relative to --path or to the log's TOML)"
            )
        found |= dict.fromkeys(there)
    return tuple(found)


def open_source(
    connection: duckdb.DuckDBPyConnection,
    table: TableFiles,
    folder: Path,
    place: str,
    wanted: Sequence[str] = (),
) -> Source:
    """Detect the layout of the files.

    Args:
        connection: to look at Parquet with.
        table: the declaration.
        folder: where relative paths start.
        place: the table's key, for errors.
        wanted: columns that must be there.

    Raises:
        LogFileError: a file is missing, empty or broken.
        ConfigurationError: a column is missing.
    """
    files = find_files(table, folder, place)
    for path in files:
        if not path.stat().st_size:
            raise LogFileError(f"{path} holds no rows: it is empty; was the file cut short?")
    kind = table.format or format_of(files[0], place)
    if kind == "parquet":
        return _parquet(connection, files, place, wanted)
    if kind == "jsonl":
        return _json_lines(files, place, wanted)
    return _csv(files, table, place, wanted)


def format_of(path: Path, place: str) -> str:
    """csv, jsonl or parquet, by a file's name.

    Raises:
        ConfigurationError: it is of a format that is not read.
    """
    suffix = path.suffixes[-2] if path.suffix == ".gz" and len(path.suffixes) > 1 else path.suffix
    # a name such as u.data or ratings.1 says nothing: most are separated texts
    if suffix.lower() in {".xlsx", ".xls", ".zip", ".tar", ".7z", ".avro", ".orc"}:
        raise ConfigurationError(
            f"{place}.files: {path} is neither CSV, JSON lines nor Parquet: unpack or export it"
        )
    return _FORMATS.get(suffix.lower(), "csv")


def _parquet(
    connection: duckdb.DuckDBPyConnection,
    files: tuple[Path, ...],
    place: str,
    wanted: Sequence[str],
) -> Source:
    names = ", ".join(literal(str(path)) for path in files)
    sql = f"SELECT * FROM read_parquet([{names}], union_by_name=true)"
    with reading(str(files[0])):
        rows = connection.execute(f"DESCRIBE {sql}").fetchall()
    columns = {row[0]: row[1] for row in rows}
    check_columns(wanted, columns, place, str(files[0]))
    return Source(sql, columns, files, "parquet")


def _json_lines(files: tuple[Path, ...], place: str, wanted: Sequence[str]) -> Source:
    keys: dict[str, None] = {}
    first = ""
    with reading(str(files[0])):
        for line in first_lines(files[0], "utf-8", 1000):
            first = first or line
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue  # counted, with its line, when the rows are read
            if isinstance(row, dict):
                keys |= dict.fromkeys(row)
    if not keys:
        raise LogFileError(
            f"{files[0]}: none of the first lines is a JSON object ({first[:80]!r}); JSON lines"
            ' hold one {"name": value, …} a line'
        )
    check_columns(wanted, keys, place, str(files[0]))
    names = ", ".join(literal(str(path)) for path in files)
    paths = ", ".join(literal(f'$."{key}"') for key in keys)
    cells = ", ".join(f"j[{at}] AS {quoted(key)}" for at, key in enumerate(keys, 1))
    sql = (
        f"SELECT {cells}, CASE WHEN j IS NULL THEN 'not JSON' END AS {BAD} FROM (SELECT CASE WHEN"
        f" json_valid(line) THEN json_extract_string(line, [{paths}]) END AS j FROM read_csv("
        f"[{names}], delim='{_NEVER}', quote='', escape='', header=false, auto_detect=false,"
        f" columns={{'line': 'VARCHAR'}}, max_line_size={_LONGEST_LINE}, store_rejects=true,"
        " ignore_errors=true))"
    )
    return Source(sql, dict.fromkeys(keys, "VARCHAR"), files, "jsonl")


def _csv(files: tuple[Path, ...], table: TableFiles, place: str, wanted: Sequence[str]) -> Source:
    parts: dict[tuple[str, bool, tuple[str, ...]], list[Path]] = {}
    layouts = []
    for path in files:
        layout = _layout(path, table, place, wanted)
        parts.setdefault(layout, []).append(path)
        layouts.append((layout[0], table.quote, layout[2]))
    every = dict.fromkeys(itertools.chain.from_iterable(columns for _, _, columns in parts))
    selects = [
        _csv_scan(paths, table, separator, header, columns)
        for (separator, header, columns), paths in parts.items()
    ]
    sql = " UNION ALL BY NAME ".join(selects)
    return Source(sql, dict.fromkeys(every, "VARCHAR"), files, "csv", tuple(layouts))


def _csv_scan(
    paths: Sequence[Path], table: TableFiles, separator: str, header: bool, columns: Sequence[str]
) -> str:
    names = ", ".join(literal(str(path)) for path in paths)
    types = ", ".join(f"{literal(column)}: 'VARCHAR'" for column in columns)
    nulls = ", ".join(literal(text) for text in table.null or [""])
    quote = literal(table.quote)
    return (
        f"SELECT * FROM read_csv([{names}], delim={literal(separator)}, quote={quote},"
        f" escape={quote}, header={str(header).lower()}, auto_detect=false, columns={{{types}}},"
        f" nullstr=[{nulls}], encoding={literal(table.encoding)}, max_line_size={_LONGEST_LINE},"
        " store_rejects=true, ignore_errors=true)"
    )


def _layout(
    path: Path, table: TableFiles, place: str, wanted: Sequence[str]
) -> tuple[str, bool, tuple[str, ...]]:
    """Separator, whether there is a header, and the names of the columns."""
    with reading(str(path)):
        lines = list(first_lines(path, table.encoding, 3))
    if not any(line.strip() for line in lines):
        raise LogFileError(f"{path} holds no rows: was the file cut short?")
    line = lines[0]
    separator = table.separator or _separator(line, [*wanted, *(table.columns or ())], table.quote)
    cells = split_line(line, separator, table.quote)
    if table.columns is not None:
        names = table.columns
        header = _has_header(cells, names) if table.header is None else table.header
        if len(cells) != len(names):
            raise LogFileError(
                f"{path}, line 1: {len(cells)} columns instead of {len(names)}"
                f" ({', '.join(names)}), split at {separator!r}: {line[:120]!r}; is"
                f" {place}.separator or {place}.columns wrong?"
            )
    elif table.header is False:
        raise ConfigurationError(
            f"{place}: header = false needs the names of the columns: columns = […]; the first line"
            f" has {len(cells)}: {line[:120]!r}"
        )
    else:
        # some tables of Pandas have an index without a name
        names, header = [cell or f"column{at}" for at, cell in enumerate(cells)], True
        _check_header(path, names, line, place=place, wanted=wanted, separator=separator)
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise LogFileError(
            f"{path}, line 1: the column {twice[0]!r} is there twice; give each of the {len(names)}"
            f" columns a name with {place}.columns = […], and {place}.header = true, or false if"
            " the first line is a row (`headrace log init` finds out)"
        )
    if header and not any(one.strip() for one in lines[1:]):
        raise LogFileError(f"{path} holds no rows behind its header: was the file cut short?")
    check_columns(wanted, names, place, str(path))
    return separator, header, tuple(names)


def _check_header(
    path: Path, names: list[str], line: str, *, place: str, wanted: Sequence[str], separator: str
) -> None:
    if set(wanted) & set(names):
        return
    if wanted and len(names) == 1:
        better = next((one for one in _SEPARATORS if one != separator and one in line), None)
        cure = f"; {place}.separator = {better!r}?" if better else ""
        raise LogFileError(
            f"{path}, line 1: one column, split at {separator!r}: {line[:80]!r}{cure}"
        )
    if wanted and any(cell[:1].isdigit() for cell in names):
        raise LogFileError(
            f"{path}, line 1: the first line looks like a row and not like the names of the columns"
            f" ({line[:80]!r}); give {place}.columns = […]"
        )


def _separator(line: str, wanted: Sequence[str], quote: str) -> str:
    """The separator that finds most of the wanted columns, then most columns."""

    def worth(separator: str) -> tuple[int, int]:
        cells = split_line(line, separator, quote)
        return len(set(cells) & set(wanted)), len(cells)

    return max(_SEPARATORS, key=worth)


def _has_header(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Whether a first line names columns: it has these names, or no cell with a digit."""
    if [cell.strip() for cell in cells] == list(names):
        return True
    return not any(character.isdigit() for cell in cells for character in cell)


def first_lines(path: Path, encoding: str, count: int) -> Iterator[str]:
    """The first lines of a text, without their ends and without a byte order mark."""
    name = "utf-8-sig" if encoding.lower() in {"utf-8", "utf8"} else encoding
    with path.open("rb") as probe:
        packed = probe.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else path.open("rb") as raw:
        text = io.TextIOWrapper(raw, encoding=name, errors="replace", newline="\n")
        for line in itertools.islice(text, count):
            yield line.rstrip("\r\n")


def split_line(line: str, separator: str, quote: str) -> list[str]:
    """The cells of one line.

    >>> split_line('a,"b, c"', ",", '"')
    ['a', 'b, c']
    """
    if len(separator) == 1 and quote:
        return next(csv.reader([line], delimiter=separator, quotechar=quote), [])
    return line.split(separator)


def kind_of_column(connection: duckdb.DuckDBPyConnection, sql: str, column: str, place: str) -> str:
    """What a column of texts holds: ``number`` if most of its first cells are, or ``boolean``."""
    name = quoted(column)
    with reading(place):
        found = connection.execute(
            f"SELECT count({name}), count(TRY_CAST({name} AS DOUBLE)),"
            f" count(*) FILTER (lower({name}) IN ('true', 'false')) FROM (FROM ({sql})"
            f" LIMIT {SAMPLE_ROWS})"
        ).fetchone()
    filled, numbers, booleans = found or (0, 0, 0)
    if filled and numbers >= 0.5 * filled:  # the others are unreadable rows, each with its line
        return "number"
    return "boolean" if filled and booleans >= 0.5 * filled else "text"


def scratch_folder() -> Path:
    """The cache folder of scratch databases and sorted logs."""
    folder = cache_folder() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
