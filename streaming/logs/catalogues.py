"""Reads catalogues: the attributes of users and items, as entities."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import duckdb

from settings.errors import ConfigurationError, LogFileError
from streaming.events import Entity
from streaming.logs.columns import ReadableRows
from streaming.logs.leaks import refuse_results
from streaming.logs.log_file import AttributeColumn, CatalogueFiles, LogFile, time_column
from streaming.logs.rules import quoted
from streaming.logs.sources import open_source, reading

log = logging.getLogger(__name__)

Value = str | float | list[str | float]
_BATCH = 10_000


def read_catalogue(
    declared: LogFile, folder: Path, side: Literal["items", "users"]
) -> Iterator[Entity]:
    """The entities of one side, in the order of their file; none if nothing is declared.

    Without files of its own a catalogue is read from ``[events]``: the first row, by time, with an
    id. Later changes are not used, since they would leak into earlier events.

    Raises:
        LogFileError: a file is missing or broken.
        ConfigurationError: a column is missing.
    """
    catalogue: CatalogueFiles | None = getattr(declared, side)
    if catalogue is None:
        return
    table = catalogue.table
    if table is not None and catalogue.optional and not _there(table.patterns, folder):
        log.warning(
            "%s: %s is missing: the log has no %s of its %s",
            declared.name,
            ", ".join(table.patterns),
            ", ".join(catalogue.fields),
            side,
        )
        return
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        if table is None:
            refuse_results(declared)
            source = open_source(connection, declared.events, folder, "events")
            rows = ReadableRows(connection, declared.events, source, "events")
        else:
            source = open_source(connection, table, folder, side)
            rows = ReadableRows(connection, table, source, side)
        sql = _query(declared, catalogue, rows, side)
        with reading(source.title):
            reader = connection.execute(sql)
            makers = [(n, _maker(f, source.title)) for n, f in catalogue.fields.items()]
            while batch := reader.fetchmany(_BATCH):
                for id_, *cells in batch:
                    attributes = {
                        name: value
                        for (name, make), cell in zip(makers, cells, strict=True)
                        if (value := make(cell)) is not None
                    }
                    yield Entity(id=id_, attributes=attributes)
    finally:
        connection.close()


def _there(patterns: list[str], folder: Path) -> bool:
    return any(path.exists() for pattern in patterns for path in [*folder.glob(pattern)][:1])


def _query(declared: LogFile, catalogue: CatalogueFiles, rows: ReadableRows, side: str) -> str:
    """The id, then the attributes."""
    own = declared.events.user if side == "users" else declared.events.item
    id_column = catalogue.id or own
    if id_column is None:
        raise ConfigurationError(f"{side}.id: name the column of the id")
    rows.check(id_column, "id")
    cells = []
    for name, one in catalogue.fields.items():
        column = one.column or name
        rows.check(column, f"attributes.{name}")
        cells.append(_cell(rows, one, column))
    named = ", ".join(
        [f"{rows.text(id_column)} AS __id"]
        + [f"{cell} AS __a{at}" for at, cell in enumerate(cells)]
    )
    names = ", ".join(f"__a{at}" for at in range(len(cells)))
    if catalogue.files is not None:
        # the rule sees typed columns, the attributes raw ones
        where = "true" if catalogue.where is None else rows.rule(catalogue.where, "where")
        typed = ", ".join(f"{value} AS {quoted(name)}" for name, value in rows.typed.items())
        star = f"* REPLACE ({typed})" if typed else "*"
        return (
            f"SELECT __id, {names} FROM (SELECT {star}, {named} FROM ({rows.sql}))"
            f" WHERE __id IS NOT NULL AND {where}"
        )
    ms = rows.time(time_column(declared.events.time), "time")
    firsts = ", ".join(f"arg_min(__a{at}, __ts)" for at in range(len(cells)))
    return (
        f"SELECT __id, {firsts} FROM (SELECT {ms} AS __ts, {named} FROM ({rows.sql}))"
        " WHERE __id IS NOT NULL AND __ts IS NOT NULL GROUP BY 1 ORDER BY 1"
    )


def _cell(rows: ReadableRows, one: AttributeColumn, column: str) -> str:
    if one.kind in {"set", "vector"}:
        return rows.listed(column, one.separator)
    return rows.number(column) if one.kind == "number" else rows.text(column)


def _maker(one: AttributeColumn, title: str) -> Callable[[Any], Value | None]:
    if one.kind == "set":
        return lambda cell: list(dict.fromkeys(cell)) or None
    if one.kind != "vector":
        return lambda cell: cell

    def vector(cell: list[str]) -> Value | None:
        try:
            return [float(number) for number in cell] or None
        except ValueError as error:
            raise LogFileError(
                f"{title}: {' '.join(cell)[:80]!r} is not a vector: give numbers, and the separator"
            ) from error

    return vector
