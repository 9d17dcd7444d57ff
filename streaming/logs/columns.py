"""What a declared column becomes in SQL: an id, a time, a number, a list."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import duckdb

from settings.errors import ConfigurationError, LogFileError
from streaming.events import SECONDS_LIMIT
from streaming.logs.log_file import TableFiles, TimeColumn, Unit, time_column
from streaming.logs.rules import check_columns, columns_of, quoted
from streaming.logs.sources import BAD, SAMPLE_ROWS, Source, kind_of_column, reading

_FLOATS = ("FLOAT", "DOUBLE", "DECIMAL")
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = (*_FLOATS, *_INTEGERS, *(f"U{name}" for name in _INTEGERS))
# how many of a unit are a millisecond
_A_MS: dict[Unit, float] = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}
_EARLIEST_MS = 631_152_000_000  # 1990
_DAY_MS = 86_400_000


class ReadableRows:
    """The rows of a table with the columns that rules make of them.

    Args:
        connection: to look at the data with.
        table: the declaration.
        source: its files.
        place: its key, for errors.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, table: TableFiles, source: Source, place: str
    ) -> None:
        self._connection = connection
        self._place = place
        self.source = source
        self.encoding = table.encoding
        self.missing = table.null
        self.columns = dict(source.columns)
        parts = []
        for name, expression in table.derive.items():
            where = f"{place}.derive.{name}"
            if name in self.columns:
                raise ConfigurationError(f"{where}: the files have a column {name!r} already")
            check_columns(columns_of(expression, where), self.columns, where, source.title)
            parts.append(f"({expression}\n) AS {quoted(name)}")
            self.columns[name] = "VARCHAR"
        # a new column may be made of those before it
        self.sql = source.sql
        for part in parts:
            self.sql = f"SELECT *, {part} FROM ({self.sql})"
        if parts:
            try:
                described = connection.execute(f"DESCRIBE {self.sql}").fetchall()
            except duckdb.Error as error:
                raise ConfigurationError(f"{place}.derive: {_short(error)}") from error
            self.columns = {row[0]: row[1] for row in described if row[0] != BAD}
        self._kinds: dict[str, str] = {}
        # typed columns that rules read, by name; a cell that is none is a reason to skip the row
        self.typed: dict[str, str] = {}

    def check(self, column: str | None, key: str) -> None:
        """Check that there is this column."""
        if column is not None:
            check_columns([column], self.columns, f"{self._place}.{key}", self.source.title)

    def kind(self, column: str) -> str:
        """``number``, ``boolean``, ``list`` or ``text``."""
        declared = self.columns[column]
        if declared.endswith("[]"):
            return "list"
        if declared == "BOOLEAN":
            return "boolean"
        if declared.startswith(_NUMBERS):
            return "number"
        if declared != "VARCHAR":
            return "text"
        if column not in self._kinds:
            self._kinds[column] = kind_of_column(
                self._connection, self.sql, column, self.source.title
            )
        return self._kinds[column]

    def rule(self, rule: str, key: str) -> str:
        """A rule in SQL, over typed columns; see :attr:`typed`.

        Raises:
            ConfigurationError: it is no rule, its columns are not there, or types do not fit.
        """
        where = f"{self._place}.{key}"
        names = columns_of(rule, where)
        check_columns(names, self.columns, where, self.source.title)
        for name in names:
            self.typed[name] = self.number(name) if self.kind(name) == "number" else quoted(name)
            if self.kind(name) == "boolean":
                self.typed[name] = f"TRY_CAST({quoted(name)} AS BOOLEAN)"
        cells = ", ".join(f"{self.typed[name]} AS {quoted(name)}" for name in names) or "1 AS one"
        sql = f"SELECT ({rule}\n)::BOOLEAN FROM (SELECT {cells} FROM ({self.sql}) LIMIT 1000)"
        try:
            self._connection.execute(sql).fetchall()
        except duckdb.Error as error:
            kinds = ", ".join(f"{name} is a {self.kind(name)}" for name in names)
            raise ConfigurationError(
                f"{where}: {rule!r} cannot be computed: {_short(error)}; {kinds}"
            ) from error
        return f"({rule}\n)::BOOLEAN"

    def number(self, column: str) -> str:
        """A number; NULL for what is none, and for NaN."""
        cell = f"TRY_CAST({quoted(column)} AS DOUBLE)"
        return f"CASE WHEN isfinite({cell}) THEN {cell} END"

    def text(self, column: str) -> str:
        """A text; whole numbers stored as floats lose their ``.0``; empty ones are NULL."""
        name = quoted(column)
        if self.columns[column].startswith(_FLOATS):
            whole = f"TRY_CAST({name} AS HUGEINT)"
            return (
                f"CASE WHEN isnan({name}) THEN NULL WHEN {whole} = {name} THEN {whole}::VARCHAR"
                f" ELSE {name}::VARCHAR END"
            )
        return f"nullif({name}::VARCHAR, '')"

    def listed(self, column: str, separator: str) -> str:
        """A list of texts, out of a list or of a text that is split; never NULL."""
        name = quoted(column)
        if self.columns[column].endswith("[]"):
            return f"coalesce({name}::VARCHAR[], []::VARCHAR[])"
        text = f"trim({name}::VARCHAR)"
        inside = f"trim(regexp_replace({text}, '[\\[\\]''\"]', '', 'g'))"
        parts = (
            f"CASE WHEN {text} LIKE '[%]' THEN regexp_split_to_array({inside}, '[,\\s]+')"
            f" ELSE string_split({text}, {_literal(separator)}) END"
        )
        return f"coalesce(list_filter({parts}, lambda x: trim(x) <> ''), []::VARCHAR[])"

    def arrival(self, column: str | TimeColumn | None, ms: str) -> str:
        """When a row arrived, as :meth:`time`; without a column, its own time."""
        return ms if column is None else self.time(time_column(column), "arrival")

    def time(self, column: TimeColumn, key: str) -> str:
        """Milliseconds since 1970, BIGINT; NULL where the cell is no time.

        Raises:
            ConfigurationError: the column is missing, or its unit or pattern does not fit.
        """
        self.check(column.column, key)
        where = f"{self._place}.{key}"
        name, declared = quoted(column.column), self.columns[column.column]
        zone = _literal(column.zone)
        if declared == "TIMESTAMP WITH TIME ZONE":
            return f"epoch_ms({name})"
        if declared.startswith("TIMESTAMP") or declared == "DATE":
            return f"epoch_ms(timezone({zone}, {name}::TIMESTAMP))"
        if column.format is not None:
            parsed = f"try_strptime({name}::VARCHAR, {_literal(column.format)})"
            zoned = "%z" in column.format or "%Z" in column.format
            sql = f"epoch_ms({parsed if zoned else f'timezone({zone}, {parsed})'})"
            self._some_time(sql, column, where)
            return sql
        if column.unit is None and self.kind(column.column) == "number":
            fits = self._unit_that_fits(column.column)
            cure = f"; its median fits {fits!r}" if fits else ""
            raise ConfigurationError(
                f"{where}: column {column.column!r} holds numbers, of what unit? Write time ="
                f" {{column = {column.column!r}, unit = {fits or 's'!r}}}{cure}"
            )
        if column.unit is not None:
            sql = self._from_number(name, column.unit)
            self._check_unit(sql, column, where)
            return sql
        text = f"trim({name}::VARCHAR)"
        has_zone = (
            f"regexp_matches({text}, '(Z|UTC|GMT|:[0-9]{{2}}.*[+-][0-9]{{2}}(:?[0-9]{{2}})?)$')"
        )
        naive = f"timezone({zone}, TRY_CAST({text} AS TIMESTAMP))"
        sql = (
            f"epoch_ms(CASE WHEN {has_zone} THEN TRY_CAST({text} AS TIMESTAMPTZ) ELSE {naive} END)"
        )
        self._some_time(sql, column, where)
        return sql

    def _from_number(self, name: str, unit: Unit) -> str:
        if unit == "ns":  # too long for a float
            return f"TRY_CAST({name} AS HUGEINT)::HUGEINT // 1000000::HUGEINT"
        scale = {"s": "* 1000", "ms": "", "us": "/ 1000"}[unit]
        value = f"floor(TRY_CAST({name} AS DOUBLE) {scale})"
        return f"TRY_CAST(CASE WHEN isfinite({value}) THEN {value} END AS BIGINT)"

    def _sample(self, sql: str) -> list[object]:
        with reading(self.source.title):
            rows = self._connection.execute(
                f"SELECT {sql} FROM (FROM ({self.sql}) LIMIT {SAMPLE_ROWS})"
            ).fetchall()
        return [row[0] for row in rows]

    def _unit_that_fits(self, column: str) -> Unit | None:
        values = sorted(
            value for value in self._sample(self.number(column)) if isinstance(value, float)
        )
        if not values:
            return None
        median, latest = values[len(values) // 2], time.time() * 1000 + _DAY_MS
        for unit, each in _A_MS.items():
            if _EARLIEST_MS <= median / each <= latest:
                return unit
        return None

    def _check_unit(self, sql: str, column: TimeColumn, where: str) -> None:
        values = sorted(value for value in self._sample(sql) if isinstance(value, int))
        if not values:
            raise LogFileError(
                f"{where}: {self.source.title}, column {column.column!r}: no cell of the first rows"
                f" is a number; it holds {self._examples(column.column)}"
            )
        median = values[len(values) // 2]
        if _EARLIEST_MS <= median <= time.time() * 1000 + _DAY_MS:
            return
        fits = self._unit_that_fits(column.column)
        cure = f"unit = {fits!r} fits" if fits else "no unit fits: is it the right column?"
        raise ConfigurationError(
            f"{where}: read in {column.unit!r}, the times of column {column.column!r} lie around"
            f" {_when(median)}, not between 1990 and tomorrow; {cure}"
        )

    def _some_time(self, sql: str, column: TimeColumn, where: str) -> None:
        values = self._sample(sql)
        good = sorted(value for value in values if isinstance(value, int))
        if not good:
            form = f"of the form {column.format!r}" if column.format else "in ISO 8601"
            raise ConfigurationError(
                f"{where}: column {column.column!r} holds no time {form}; it has"
                f" {self._examples(column.column)}. Give format = a strptime pattern, such as"
                " '%d/%m/%Y %H:%M'"
            )
        median = good[len(good) // 2]
        if not _EARLIEST_MS <= median <= time.time() * 1000 + _DAY_MS:
            raise ConfigurationError(
                f"{where}: the times of column {column.column!r} lie around {_when(median)}, not"
                " between 1990 and tomorrow: is the format right, and the column?"
            )

    def _examples(self, column: str) -> str:
        cells = self._connection.execute(
            f"SELECT DISTINCT {quoted(column)}::VARCHAR FROM (FROM ({self.sql}) LIMIT 100) LIMIT 3"
        ).fetchall()
        return ", ".join(repr(str(cell[0])[:40]) for cell in cells) or "nothing"


def first_reason(reasons: Sequence[tuple[str, str]]) -> str:
    """The first reason whose condition holds, in SQL; NULL for a row that is sound."""
    cases = " ".join(f"WHEN {condition} THEN {_literal(text)}" for condition, text in reasons)
    return f"CASE {cases} END" if cases else "NULL::VARCHAR"


def time_reasons(key: str) -> list[tuple[str, str]]:
    """Why a row's time ``ts`` cannot be used: conditions (``given``: it has a cell) and texts."""
    return [
        ("NOT given", f"{key}: missing"),
        ("ts IS NULL", f"{key}: not a time"),
        ("known IS NULL", "arrival: not a time"),
        (f"ts < {SECONDS_LIMIT}", f"{key}: before 1973"),
        (f"ts > {int(time.time() * 1000) + _DAY_MS}", f"{key}: in the future"),
    ]


def _when(ms: int) -> str:
    try:
        return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return f"{ms:.3g} ms since 1970"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _short(error: Exception) -> str:
    return " ".join(str(error).split("LINE 1")[0].split())[:300]
