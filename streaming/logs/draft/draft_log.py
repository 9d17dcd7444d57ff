"""A first declaration of a log, drafted from a look at its files: each line says why."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from settings.errors import ConfigurationError
from streaming.logs.draft.cell_shapes import FORMS
from streaming.logs.draft.draft_outcome import draft_outcome
from streaming.logs.draft.look_at_files import LookedColumn, LookedFile, look_at_files
from streaming.logs.leaks import sounds_like_result
from streaming.logs.rules import quoted
from streaming.logs.sources import SAMPLE_ROWS

_NOT_PLAIN = re.compile(r"[^a-z0-9._-]+")
# ids that come again, so that what they fix can be seen; and the share of them that may change
_REPEATING = 50
_SLACK = 0.02
# columns of a file that a message lists
_LISTED = 20
# parts of the time: an attribute of nothing
_TIMES = re.compile(
    r"(^|_)(date|day|dt|hour|hourmin|time|timestamp|start|week|month|year)(_|$)", re.I
)


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
        looked = look_at_files(connection, [path.expanduser().absolute() for path in files])
        events = _events_of(looked)
        lines = list(_draft(connection, looked, events, name, folder))
    finally:
        connection.close()
    return "\n".join(lines) + "\n"


def _events_of(looked: Sequence[LookedFile]) -> LookedFile:
    """The file of what was shown: it has users, times, and items or lists of them."""
    fit = [one for one in looked if not one.missing]
    if not fit:
        raise ConfigurationError(_what_to_write(looked))
    return max(fit, key=lambda one: ("shown" in one.roles, "click" in one.roles))


def _what_to_write(looked: Sequence[LookedFile]) -> str:
    """Why there is no draft, what the files hold, and the TOML to fill in."""
    best = min(looked, key=lambda one: len(one.missing))
    missing = best.missing
    lines = [
        f"no file has a user, a time and an item in each row; {best.path} comes nearest, but no"
        f" column of it is the {' or the '.join(missing)} by its name or its values. The columns:"
    ]
    for one in looked:
        lines.append(f"{one.path}{' (no header)' if one.layout else ''}")
        columns = list(one.columns.values())
        lines += [f"  {column.name}: {column.examples}" for column in columns[:_LISTED]]
        if len(columns) > _LISTED:
            lines.append(f"  and {len(columns) - _LISTED} more")
    lines += ["Write a TOML such as this, with columns in place of <...>:", 'name = "my-log"']
    lines += ["[events]", f"files = {json.dumps(str(best.path))}", *_layout(best)]
    for role in ("user", "item", "time"):
        column = best.roles.get(role)
        if role == "item" and "shown" in best.roles:
            continue
        if role == "time" and column is None:
            lines.append('time = { column = "<time>", unit = "s" } # or format = "%d/%m/%Y %H:%M"')
        else:
            lines.append(f"{role} = {json.dumps(column or f'<{role}>')}")
    click = quoted(best.roles["click"]) if "click" in best.roles else "<column>"
    lines.append(f"click = {json.dumps(f'{click} = 1')} # or [negatives] if each row is a click")
    if "item" in missing:
        lines.append("# if a row holds a list of items, [events.lists] stands in place of item")
    return "\n".join(lines)


def _layout(one: LookedFile) -> list[str]:
    """The keys that describe a text without a header, or one that is not UTF-8."""
    lines = []
    if one.encoding != "utf-8":
        lines.append(f"encoding = {json.dumps(one.encoding)} # it is not UTF-8")
    if one.layout is None:
        return lines
    lines += [
        f"separator = {json.dumps(one.layout.separator)}",
        "header = false # the first line looks like the rows below it",
        f"columns = {json.dumps(list(one.columns))}",
    ]
    if not one.layout.quote:
        lines.append('quote = "" # quotes are part of the texts')
    return lines


def _draft(
    connection: duckdb.DuckDBPyConnection,
    looked: Sequence[LookedFile],
    events: LookedFile,
    name: str,
    folder: Path,
) -> Iterator[str]:
    roles, columns = events.roles, events.columns
    plain = _NOT_PLAIN.sub("-", (name or events.path.stem.split(".")[0]).lower()).strip("-._")
    yield "# drafted by `headrace log init`: look through it, then `headrace log check` it"
    yield f"name = {json.dumps(plain or 'log')}"
    used = {column for role, column in roles.items() if role not in {"rating", "clicked"}}
    results = [n for n in columns if n not in used and sounds_like_result(n)]
    outcome = draft_outcome(connection, events)
    results = [n for n in results if n not in outcome.columns and n != roles.get("clicked")]
    if results:
        yield f"results = {json.dumps(results)} # they sound as if known after the action only"
    if any(line.startswith("[feedback]") for line in outcome.tables):
        yield '# attribution = "1d" # how long an action may come after its impression; none: 1h'
    yield from ("", "[events]", f"files = {json.dumps(_relative(events.path, folder))}")
    yield from _layout(events)
    yield f"user = {json.dumps(roles['user'])} # {events.why('user')}"
    if "shown" not in roles:
        yield f"item = {json.dumps(roles['item'])} # {events.why('item')}"
    yield f"time = {_time(connection, events)}"
    further = _further_parts(events)
    for role, meaning in further.items():
        yield f"{role} = {json.dumps(roles[role])} # {meaning}"
    yield from outcome.events
    taken = {*roles.values(), *results, *outcome.columns}
    parts = {"user", "time", *further} | (set() if "shown" in roles else {"item"})
    read = {*results, *outcome.columns, *(roles[role] for role in parts)}
    rest = [
        column
        for name, column in columns.items()
        if name not in taken and column.different > 1 and not _TIMES.search(name)
    ]
    sorted_out = _sorted_out(connection, events, rest)
    if sorted_out.context:
        yield "# not fixed by the user or the item: they describe the request"
        yield from _context(sorted_out.context)
    empty = [n for n, column in columns.items() if n not in taken and column.different <= 1]
    times = [n for n in columns if n not in taken and n not in empty and _TIMES.search(n)]
    yield from _not_used("with one value or none", empty)
    yield from _not_used("parts of a time, by their names", times)
    yield from _not_used("with too many values for a category", sorted_out.unused)
    yield from _not_used("as no key of such a log reads it", sorted(taken - read))
    for line in outcome.tables:
        if line == "files = FILES":
            yield f"files = {json.dumps(_relative(events.path, folder))}"
            yield from _layout(events)
        else:
            yield f"time = {_time(connection, events)}" if line == "time = TIME" else line
    for side, own in (("items", sorted_out.of_item), ("users", sorted_out.of_user)):
        yield from _catalogue(looked, events, side, own, folder)
    about = [one for role in ("item", "user") for one in _apart(looked, events, role)[:1]]
    for one in looked:
        if one is not events and one not in about:
            name = json.dumps(_relative(one.path, folder))
            yield f"# not used: {name}; if it holds actions, declare it as [feedback]"


def _further_parts(events: LookedFile) -> dict[str, str]:
    """Keys of [events] that a log may have, and what each means."""
    roles, found = events.roles, {}
    request = roles.get("request")
    if request and request != roles["user"]:
        column = events.columns[request]
        if "shown" in roles or column.different < 0.9 * column.filled:
            found["request"] = "what was shown together"
    if "position" in roles and "shown" not in roles:  # beside a list it is no place of an item
        found["position"] = "the place on the page, by its name"
    if "propensity" in roles:
        found["propensity"] = "the probability with which it was shown, by its name"
    return found


def _not_used(why: str, names: Sequence[str]) -> Iterator[str]:
    """A comment, so that no column is left out in silence."""
    if names:
        yield f"# not used, {why}: {', '.join(json.dumps(name) for name in names)}"


def _apart(looked: Sequence[LookedFile], events: LookedFile, role: str) -> list[LookedFile]:
    """Files about items or users alone."""
    return [
        one
        for one in looked
        if one is not events and role in one.roles and not {"user", "item"} <= one.roles.keys()
    ]


def _context(columns: Sequence[LookedColumn]) -> Iterator[str]:
    if not any(column.separator for column in columns):
        yield f"context = {json.dumps([column.name for column in columns])}"
        return
    for column in columns:
        name = json.dumps(column.name)
        text = name
        if column.separator:
            kind = f'kind = "set", separator = {json.dumps(column.separator)}'
            text = f"{{ column = {name}, {kind} }} # {column.example!r}"
        yield f"context.{name} = {text}"


def _time(connection: duckdb.DuckDBPyConnection, events: LookedFile) -> str:
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
        counts = ", ".join(f"count(try_strptime(cell, '{form}'))" for form in FORMS)
        row = connection.execute(
            f"SELECT {counts} FROM (SELECT {quoted(column.name)}::VARCHAR AS cell"
            f" FROM ({events.source.sql}) LIMIT {SAMPLE_ROWS})"
        ).fetchone()
        fit = dict(zip(FORMS, row or (), strict=True))
        best = max(fit, key=lambda form: fit[form])
        if fit[best] > 0.5 * column.filled:
            others = [form for form in FORMS if form != best and fit[form] == fit[best]]
            doubt = f", or is it {others[0]}?" if others else ""
            return f"{{ column = {name}, format = {json.dumps(best)} }} # {column.example!r}{doubt}"
    return f"{name} # {column.example!r}"


@dataclass(frozen=True, slots=True)
class _SortedOut:
    """Columns of events that the item fixes, that the user fixes, of the request, and the rest."""

    of_item: list[LookedColumn] = field(default_factory=list)
    of_user: list[LookedColumn] = field(default_factory=list)
    context: list[LookedColumn] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def _sorted_out(
    connection: duckdb.DuckDBPyConnection, events: LookedFile, rest: Sequence[LookedColumn]
) -> _SortedOut:
    found = _SortedOut()
    for column in rest:
        few = column.kind != "list" and column.different < max(50, 0.2 * column.filled)
        if (
            "item" in events.roles
            and "shown" not in events.roles
            and _fixed(connection, events, events.roles["item"], column.name, slack=_SLACK)
        ):
            found.of_item.append(column)
        elif _fixed(connection, events, events.roles["user"], column.name, slack=0.0):
            found.of_user.append(column)
        elif few or column.separator:
            found.context.append(column)
        else:
            found.unused.append(column.name)
    return found


def _fixed(
    connection: duckdb.DuckDBPyConnection, events: LookedFile, by: str, column: str, *, slack: float
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
    looked: Sequence[LookedFile],
    events: LookedFile,
    side: str,
    own: Sequence[LookedColumn],
    folder: Path,
) -> Iterator[str]:
    role = side.removesuffix("s")
    apart = _apart(looked, events, role)
    if apart:
        (one, *_) = apart
        yield from ("", f"[{side}]", f"files = {json.dumps(_relative(one.path, folder))}")
        yield from _layout(one)
        yield f"id = {json.dumps(one.roles[role])} # {one.why(role)}"
        others = [c for n, c in one.columns.items() if n != one.roles[role]]
        columns = [c for c in others if c.different > 1]
        empty = [column.name for column in others if column.different <= 1]
        yield from _not_used("with one value or none", empty)
    elif own:
        yield from ("", f"[{side}] # what each {role} of the events has one value of")
        columns = list(own)
    else:
        return
    yield f"[{side}.attributes]"
    for column in columns:
        kind, why = _attribute(column)
        text = json.dumps(kind)
        if kind == "set" and column.separator:
            text = f"{{ kind = {text}, separator = {json.dumps(column.separator)} }}"
        yield f"{json.dumps(column.name)} = {text} # {why}"


def _attribute(column: LookedColumn) -> tuple[str, str]:
    if column.kind == "list":
        return "set", "a list"
    if column.separator:
        return "set", f"{column.example!r}"
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


def _relative(path: Path, folder: Path) -> str:
    try:
        return str(path.relative_to(folder))
    except ValueError:
        return str(path)
