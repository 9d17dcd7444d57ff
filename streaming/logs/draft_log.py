"""A first declaration of a log, drafted from a look at its files: each line says why.

It is one file because a draft is one pass from columns to lines.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from settings.errors import ConfigurationError
from streaming.logs.leaks import sounds_like_result
from streaming.logs.log_file import TableFiles
from streaming.logs.rules import quoted
from streaming.logs.sources import SAMPLE_ROWS, Source, kind_of_column, open_source, reading

_NOT_PLAIN = re.compile(r"[^a-z0-9._-]+")
# how columns are called, the likeliest name first
_ROLES = {
    "user": r"^(user_?id|uid|userid|user|visitor_?id|customer_?id|member_?id|client_?id|"
    r"profile_?id|reviewer_?id|household_?key|person_?id|account_?id|session_?id|.*user.*id.*|.*visitor.*)$",
    "item": r"^(item_?id|iid|article_?id|news_?id|product_?id|movie_?id|video_?id|ad(group)?_?id|"
    r"item|hotel_?id|sku|asin|parent_asin|content_?id|doc(ument)?_?id|track_?id|song_?id|book_?id|"
    r"offer_?id|.*(article|item|product|movie|video).*id.*)$",
    "time": r"^(time_?stamp|ts|time|event_?time|impression_?time|datetime|date_?time|created_?at|"
    r"time_ms|click_timestamp|unix_?time|unixreviewtime|.*time_?stamp.*|.*_time|.*date.*|time.*)$",
    "request": r"^(request_?id|impression_?id|slate_?id|search_?id|query_?id|req_?id|"
    r"page_?view_?id|session_?id)$",
    "shown": r"^(.*in_?view.*|impressions?|shown.*|displayed.*|candidates|slate|impression_list)$",
    "clicked": r"^(.*_clicked|clicked.*|clicks|reference|chosen.*)$",
    "click": r"^(is_)?(click|clk|clicked|label|target|y)$",
    "rating": r"^(rating|stars|score|overall|rate)(:.*)?$",
    "kind": r"^(event_?type|event|action(_type)?|behaviou?r(_type)?|btag|activity|type)$",
    "position": r"^(position|pos|rank|slot|place)$",
}
_SHOWN_KINDS = ("view", "pv", "impression", "show", "shown")
# ids that come again, so that what they fix can be seen; and the share of them that may change
_REPEATING = 50
_SLACK = 0.02
# parts of the time: an attribute of nothing
_TIMES = re.compile(
    r"(^|_)(date|day|dt|hour|hourmin|time|timestamp|start|week|month|year)(_|$)", re.I
)


@dataclass(frozen=True, slots=True)
class _Column:
    """What the first rows say of a column."""

    name: str
    kind: str
    filled: int
    different: int
    example: str


@dataclass(slots=True)
class _Looked:
    """One file, looked at."""

    path: Path
    source: Source
    columns: dict[str, _Column]
    roles: dict[str, str]


def draft_log(files: Sequence[Path], name: str, folder: Path) -> str:
    """The text of a TOML that declares the log of these files.

    Args:
        files: of events, and optionally of actions, items and users, in any order.
        name: of the log; empty: after the first file's folder or name.
        folder: of the TOML, which paths are written relative to where they can be.

    Raises:
        ConfigurationError: no file holds events.
        LogFileError: a file is missing or broken.
    """
    connection = duckdb.connect()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        looked = [_look(connection, path.expanduser().absolute()) for path in files]
        events = _events_of(looked)
        lines = list(_draft(connection, looked, events, name, folder))
    finally:
        connection.close()
    return "\n".join(lines) + "\n"


def _look(connection: duckdb.DuckDBPyConnection, path: Path) -> _Looked:
    source = open_source(connection, TableFiles(files=str(path)), Path("/"), "files")
    columns = {}
    with reading(str(path)):
        for name, declared in source.columns.items():
            cell = quoted(name)
            filled, different, example = connection.execute(
                f"SELECT count({cell}), count(DISTINCT {cell}), any_value({cell})::VARCHAR"
                f" FROM (FROM ({source.sql}) LIMIT {SAMPLE_ROWS})"
            ).fetchone() or (0, 0, "")
            kind = "list" if declared.endswith("[]") else "time" if "TIME" in declared else "number"
            if declared == "VARCHAR":
                kind = kind_of_column(connection, source.sql, name, str(path))
            elif declared == "BOOLEAN":
                kind = "boolean"
            columns[name] = _Column(name, kind, filled, different, str(example)[:60])
    return _Looked(path, source, columns, _roles(columns))


def _roles(columns: dict[str, _Column]) -> dict[str, str]:
    """Which column plays which part, by their names; no column plays two."""
    roles: dict[str, str] = {}
    for role, pattern in _ROLES.items():
        found = [n for n in columns if re.match(pattern, n.split(":")[0], re.IGNORECASE)]
        found = [name for name in found if name not in roles.values() and columns[name].filled]
        alternatives = pattern.strip("^()$").split("|")
        found.sort(key=lambda name: _place(name, alternatives))
        if role == "clicked":
            found = [name for name in found if columns[name].different > 2]
        if role == "item":
            found = [name for name in found if columns[name].kind != "list"]
        if role == "shown":
            found = [n for n in found if columns[n].kind in {"list", "text"}]
        if found:
            roles[role] = found[0]
    if "shown" in roles and "item" in roles and "clicked" not in roles:
        roles.setdefault("clicked", roles["item"])
    return roles


def _place(name: str, alternatives: list[str]) -> int:
    for at, pattern in enumerate(alternatives):
        try:
            if re.fullmatch(pattern, name.split(":", maxsplit=1)[0], re.IGNORECASE):
                return at
        except re.error:  # half of a group
            continue
    return len(alternatives)


def _events_of(looked: Sequence[_Looked]) -> _Looked:
    """The file of what was shown: it has users, times, and items or lists of them."""
    fit = [
        one
        for one in looked
        if {"user", "time"} <= one.roles.keys() and one.roles.keys() & {"item", "shown"}
    ]
    if not fit:
        first = looked[0]
        raise ConfigurationError(
            f"no file has columns that sound like user, item and time; {first.path} has"
            f" {', '.join(first.columns)}. Write the TOML by hand (docs), with events.user ="
            " a column's name and so on"
        )
    return max(fit, key=lambda one: ("shown" in one.roles, "click" in one.roles))


def _draft(
    connection: duckdb.DuckDBPyConnection,
    looked: Sequence[_Looked],
    events: _Looked,
    name: str,
    folder: Path,
) -> Iterator[str]:
    roles, columns = events.roles, events.columns
    plain = _NOT_PLAIN.sub("-", (name or events.path.stem.split(".")[0]).lower()).strip("-._")
    yield "# drafted by `headrace log init`: look through it, then `headrace log check` it"
    yield f"name = {json.dumps(plain or 'log')}"
    used = {column for role, column in roles.items() if role not in {"rating", "clicked"}}
    results = [n for n in columns if n not in used and sounds_like_result(n)]
    outcome = _outcome(connection, events)
    results = [n for n in results if n not in outcome.columns and n != roles.get("clicked")]
    if results:
        yield f"results = {json.dumps(results)} # they sound as if known after the action only"
    yield from ("", "[events]", f"files = {json.dumps(_relative(events.path, folder))}")
    yield f"user = {json.dumps(roles['user'])} # by its name; {_facts(columns[roles['user']])}"
    if "shown" not in roles:
        yield f"item = {json.dumps(roles['item'])} # by its name; {_facts(columns[roles['item']])}"
    yield f"time = {_time(connection, events)}"
    request = roles.get("request")
    if (
        request
        and request != roles["user"]
        and ("shown" in roles or columns[request].different < 0.9 * columns[request].filled)
    ):
        yield f"request = {json.dumps(request)} # what was shown together"
    if "position" in roles and "shown" not in roles:
        yield f"position = {json.dumps(roles['position'])} # the place on the page, by its name"
    yield from outcome.events
    taken = {*roles.values(), *results, *outcome.columns}
    rest = [
        column
        for name, column in columns.items()
        if name not in taken and column.different > 1 and not _TIMES.search(name)
    ]
    of_item, of_user, context = _sorted_out(connection, events, rest)
    if context:
        yield "# not fixed by the user or the item: they describe the request"
        yield f"context = {json.dumps(context)}"
    for line in outcome.tables:
        text = line.replace("FILES", json.dumps(_relative(events.path, folder)))
        yield text.replace("TIME", _time(connection, events)) if line == "time = TIME" else text
    for side, own in (("items", of_item), ("users", of_user)):
        yield from _catalogue(looked, events, side, own, folder)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What says that something was clicked."""

    events: list[str]
    tables: list[str]
    columns: list[str]


def _outcome(connection: duckdb.DuckDBPyConnection, events: _Looked) -> _Outcome:
    roles, columns = events.roles, events.columns
    if "shown" in roles:
        return _list_outcome(connection, events)
    if "click" in roles:
        rule = f"{quoted(roles['click'])} = 1"
        if columns[roles["click"]].kind == "boolean":
            rule = quoted(roles["click"])
        return _Outcome([f"click = {json.dumps(rule)} # by its name"], [], [roles["click"]])
    if "kind" in roles and 1 < columns[roles["kind"]].different < 30:
        return _kinds(connection, events, roles["kind"])
    if "rating" in roles and columns[roles["rating"]].kind == "number":
        cell = f"TRY_CAST({quoted(roles['rating'])} AS DOUBLE)"
        first = f"(FROM ({events.source.sql}) LIMIT {SAMPLE_ROWS})"
        row = connection.execute(f"SELECT quantile_disc({cell}, .4) FROM {first}").fetchone()
        rule = f"{quoted(roles['rating'])} > {row[0] if row else 3:g}"
        return _Outcome(
            [f"click = {json.dumps(rule)} # a rating above most others: choose what a positive is"],
            [],
            [roles["rating"]],
        )
    why = "# nothing says what was shown and not clicked: each row is a click"
    return _Outcome([], ["", why, "[negatives]", "per_click = 4"], [])


def _list_outcome(connection: duckdb.DuckDBPyConnection, events: _Looked) -> _Outcome:
    roles = events.roles
    example = events.columns[roles["shown"]].example
    is_list = events.columns[roles["shown"]].kind == "list" or example.startswith("[")
    lines = ["", "[events.lists]", f"shown = {json.dumps(roles['shown'])} # {example!r}"]
    columns = [roles["shown"]]
    separator = next((s for s in ("|", ";", " ", ",") if s in example), " ")
    if not is_list and re.search(r"-[01](\W|$)", example):
        lines.append('mark = "-" # each entry ends with -1 or -0')
    elif "clicked" in roles:
        lines.append(f"clicked = {json.dumps(roles['clicked'])}")
        columns.append(roles["clicked"])
    else:
        lines.append('clicked = "?" # name the column of the clicked items')
    if not is_list:
        lines.append(f"separator = {json.dumps(separator)}")
    lines.append("position = false # true if the order of the list is the place on the page")
    return _Outcome([], lines, columns)


def _kinds(connection: duckdb.DuckDBPyConnection, events: _Looked, column: str) -> _Outcome:
    cell = quoted(column)
    found = connection.execute(
        f"SELECT {cell}::VARCHAR, count(*) FROM (FROM ({events.source.sql}) LIMIT 1000000)"
        f" WHERE {cell} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"
    ).fetchall()
    kinds = [str(kind) for kind, _ in found]
    shown = next((kind for kind in kinds if kind.lower() in _SHOWN_KINDS), kinds[0])
    others = [kind for kind in kinds if kind != shown]
    rule, other = f"{cell} = '{shown}'", f"{cell} <> '{shown}'"
    roles = events.roles
    lines = [f"where = {json.dumps(rule)} # the kind that says what was shown", ""]
    tables = ["", "[feedback] # the other kinds are actions on it", "files = FILES"]
    tables += [f"{role} = {json.dumps(roles[role])}" for role in ("user", "item")]
    tables += ["time = TIME", f"kind = {json.dumps(column)}", f"where = {json.dumps(other)}", ""]
    tables += ['# label: 1 positive, 0 negative, "none" for features only', "[actions]"]
    tables += [f"{json.dumps(kind)} = {{ label = 1, weight = 1.0 }}" for kind in others]
    return _Outcome(lines[:1], tables, [column])


def _time(connection: duckdb.DuckDBPyConnection, events: _Looked) -> str:
    column = events.columns[events.roles["time"]]
    name = json.dumps(column.name)
    if column.kind == "number":
        cell = f"TRY_CAST({quoted(column.name)} AS DOUBLE)"
        row = connection.execute(
            f"SELECT median({cell}) FROM (FROM ({events.source.sql}) LIMIT {SAMPLE_ROWS})"
        ).fetchone()
        median = float(row[0]) if row and row[0] is not None else 0.0
        for unit, factor in (("s", 1e3), ("ms", 1.0), ("us", 1e-3), ("ns", 1e-6)):
            if 631_152_000_000 <= median * factor <= time.time() * 1000 + 86_400_000:
                return f"{{ column = {name}, unit = {json.dumps(unit)} }} # its median fits {unit}"
    if column.kind == "text":
        for form in _FORMS:
            row = connection.execute(
                f"SELECT count(try_strptime({quoted(column.name)}::VARCHAR, '{form}')), count(*)"
                f" FROM (FROM ({events.source.sql}) LIMIT 100)"
            ).fetchone()
            if row and row[0] == row[1]:
                return f"{{ column = {name}, format = {json.dumps(form)} }} # {column.example!r}"
    return f"{name} # {column.example!r}"


_FORMS = (
    "%m/%d/%Y %I:%M:%S %p",
    "%m/%d/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M",
    "%Y%m%d%H%M%S",
    "%d.%m.%Y %H:%M:%S",
)


def _sorted_out(
    connection: duckdb.DuckDBPyConnection, events: _Looked, rest: Sequence[_Column]
) -> tuple[list[_Column], list[_Column], list[str]]:
    """Columns that the item fixes, that the user fixes, and the others."""
    of_item: list[_Column] = []
    of_user: list[_Column] = []
    context: list[str] = []
    for column in rest:
        if (
            "item" in events.roles
            and "shown" not in events.roles
            and _fixed(connection, events, events.roles["item"], column.name, slack=_SLACK)
        ):
            of_item.append(column)
        elif _fixed(connection, events, events.roles["user"], column.name, slack=0.0):
            of_user.append(column)
        elif column.kind != "list" and column.different < max(50, 0.2 * column.filled):
            context.append(column.name)
    return of_item, of_user, context


def _fixed(
    connection: duckdb.DuckDBPyConnection, events: _Looked, by: str, column: str, *, slack: float
) -> bool:
    """Whether each id that comes again has one value, but for few."""
    row = connection.execute(
        f"SELECT count(*), sum(d) FROM (SELECT count(DISTINCT {quoted(column)}) AS d"
        f" FROM (FROM ({events.source.sql}) LIMIT {SAMPLE_ROWS}) GROUP BY {quoted(by)}"
        " HAVING count(*) > 1 AND d > 0)"
    ).fetchone()
    ids, values = row or (0, 0)
    return bool(ids >= _REPEATING and values <= ids * (1 + slack))


def _catalogue(
    looked: Sequence[_Looked], events: _Looked, side: str, own: Sequence[_Column], folder: Path
) -> Iterator[str]:
    role = side.removesuffix("s")
    apart = [
        one
        for one in looked
        if one is not events and role in one.roles and not {"user", "item"} <= one.roles.keys()
    ]
    if apart:
        (one, *_) = apart
        yield from ("", f"[{side}]", f"files = {json.dumps(_relative(one.path, folder))}")
        yield f"id = {json.dumps(one.roles[role])}"
        columns = [c for n, c in one.columns.items() if n != one.roles[role] and c.different > 1]
    elif own:
        yield from ("", f"[{side}] # what each {role} of the events has one value of")
        columns = list(own)
    else:
        return
    yield f"[{side}.attributes]"
    for column in columns:
        kind, why = _attribute(column)
        yield f"{json.dumps(column.name)} = {json.dumps(kind)} # {why}"


def _attribute(column: _Column) -> tuple[str, str]:
    if column.kind == "list":
        return "set", "a list"
    if column.kind == "number" and column.different > 50:
        is_id = column.name.lower().endswith(("id", "code"))
        return (
            ("category", "a number, but an id by its name")
            if is_id
            else ("number", f"a number with {column.different:,} values")
        )
    if column.kind == "text" and column.example.count(" ") >= 3:
        return "text", f"words: {column.example!r}"
    if column.kind == "text" and column.different > 0.9 * column.filled > 100:
        return "info", "nearly each has its own: for people only"
    return "category", f"{column.different:,} values"


def _facts(column: _Column) -> str:
    return f"{column.different:,} of {column.filled:,} rows differ"


def _relative(path: Path, folder: Path) -> str:
    try:
        return str(path.relative_to(folder))
    except ValueError:
        return str(path)
