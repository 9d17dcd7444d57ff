"""What says in a log that something was clicked: a list, a column, kinds of action, or nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass

import duckdb

from streaming.logs.columns import ReadableRows
from streaming.logs.draft.cell_shapes import SHOWN_KINDS, marked_separator, split_cells
from streaming.logs.draft.look_at_files import LookedFile
from streaming.logs.leaks import sounds_like_result
from streaming.logs.log_file import TableFiles
from streaming.logs.rules import literal, quoted
from streaming.logs.sources import SAMPLE_ROWS


@dataclass(frozen=True, slots=True)
class DraftedOutcome:
    """What says that something was clicked.

    Attributes:
        events: lines of [events].
        tables: lines of tables behind it; FILES and TIME stand for those of [events].
        columns: that these lines read, or leave out for a reason that they give.
    """

    events: list[str]
    tables: list[str]
    columns: list[str]


def draft_outcome(connection: duckdb.DuckDBPyConnection, events: LookedFile) -> DraftedOutcome:
    """The keys that say so, by what the file of events has."""
    roles, columns = events.roles, events.columns
    if "shown" in roles:
        return _list_outcome(connection, events)
    if "click" in roles:
        rule = f"{quoted(roles['click'])} = 1"
        if columns[roles["click"]].kind == "boolean":
            rule = quoted(roles["click"])
        return DraftedOutcome([f"click = {json.dumps(rule)} # by its name"], [], [roles["click"]])
    if "kind" in roles and 1 < columns[roles["kind"]].different < 30:
        return _kinds(connection, events, roles["kind"])
    if "rating" in roles and columns[roles["rating"]].kind == "number":
        cell = f"TRY_CAST({quoted(roles['rating'])} AS DOUBLE)"
        first = f"(FROM ({events.source.sql}) LIMIT {SAMPLE_ROWS})"
        row = connection.execute(f"SELECT quantile_disc({cell}, .4) FROM {first}").fetchone()
        rule = f"{quoted(roles['rating'])} > {row[0] if row else 3:g}"
        return DraftedOutcome(
            [f"click = {json.dumps(rule)} # a rating above most others: choose what a positive is"],
            [],
            [roles["rating"]],
        )
    why = "# nothing says what was shown and not clicked: each row is a click"
    return DraftedOutcome([], ["", why, "[negatives]", "per_click = 4"], [])


def _list_outcome(connection: duckdb.DuckDBPyConnection, events: LookedFile) -> DraftedOutcome:
    roles = events.roles
    shown = events.columns[roles["shown"]]
    example = shown.example
    is_list = shown.kind == "list" or example.startswith("[")
    lines = ["", "[events.lists]", f"shown = {json.dumps(shown.name)} # {example!r}"]
    columns = [shown.name]
    marked = None if is_list else marked_separator(shown.cells)
    separator = marked or next((s for s in ("|", ";", " ", ",") if s in example), " ")
    if marked:
        lines.append('mark = "-" # each entry ends with -1 or -0')
    elif "clicked" in roles:
        lines.append(f"clicked = {json.dumps(roles['clicked'])}")
        columns.append(roles["clicked"])
    else:
        lines.append('clicked = "?" # name the column of the clicked items')
    if not is_list:
        lines.append(f"separator = {json.dumps(separator)}")
    lines.append("position = false # true if the order of the list is the place on the page")
    beside = [
        column
        for name, column in events.columns.items()
        if name not in roles.values() and _is_beside(connection, events, name, separator)
    ]
    columns += [column.name for column in beside]
    flags = [c for c in beside if split_cells(c.cells) <= {"0", "1"}]
    results = [c for c in beside if c in flags or sounds_like_result(c.name)]
    if results:
        names = ", ".join(json.dumps(column.name) for column in results)
        lines.append(f"# not used, as it may tell the outcome of each item shown: {names}")
    for column in beside:
        if column not in results:
            name = json.dumps(column.name)
            lines.append(f"each.{name} = {name} # one value of each item shown: no model reads it")
    return DraftedOutcome([], lines, columns)


def _is_beside(
    connection: duckdb.DuckDBPyConnection, events: LookedFile, column: str, separator: str
) -> bool:
    """Whether a column holds one value of each item shown: its lists are as long as those."""
    rows = ReadableRows(connection, TableFiles(files=str(events.path)), events.source, "events")
    shown = rows.listed(events.roles["shown"], separator)
    row = connection.execute(
        f"SELECT count(*), count(*) FILTER (shown = own), count(*) FILTER (shown > 1)"
        f" FROM (SELECT len({shown}) AS shown, len({rows.listed(column, separator)}) AS own"
        f" FROM (FROM ({events.source.sql}) LIMIT {SAMPLE_ROWS})) WHERE shown > 0"
    ).fetchone()
    count, same, several = row or (0, 0, 0)
    return bool(count and same >= 0.99 * count and several >= 0.5 * count)


def _kinds(
    connection: duckdb.DuckDBPyConnection, events: LookedFile, column: str
) -> DraftedOutcome:
    cell = quoted(column)
    found = connection.execute(
        f"SELECT {cell}::VARCHAR, count(*) FROM (FROM ({events.source.sql}) LIMIT 1000000)"
        f" WHERE {cell} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    kinds = [str(kind) for kind, _ in found]
    shown = next((kind for kind in kinds if kind.lower() in SHOWN_KINDS), kinds[0])
    others = [kind for kind in kinds if kind != shown]
    rule, other = f"{cell} = {literal(shown)}", f"{cell} <> {literal(shown)}"
    roles = events.roles
    lines = [f"where = {json.dumps(rule)} # the kind that says what was shown", ""]
    tables = ["", "[feedback] # the other kinds are actions on it", "files = FILES"]
    tables += [f"{role} = {json.dumps(roles[role])}" for role in ("user", "item")]
    tables += ["time = TIME", f"kind = {json.dumps(column)}", f"where = {json.dumps(other)}", ""]
    tables += ['# label: 1 positive, 0 negative, "none" for features only', "[actions]"]
    tables += [f"{json.dumps(kind)} = {{ label = 1, weight = 1.0 }}" for kind in others]
    return DraftedOutcome(lines[:1], tables, [column])
