"""One file of a log, looked at: its columns, and which part each of them plays."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from streaming.logs.draft.cell_shapes import (
    SHOWN_KINDS,
    epoch_unit,
    is_date,
    is_id,
    marked_separator,
    overlap,
    set_separator,
    split_cells,
)
from streaming.logs.draft.text_layout import TextLayout, encoding_of, layout_without_header
from streaming.logs.log_file import TableFiles
from streaming.logs.rules import quoted
from streaming.logs.sources import (
    SAMPLE_ROWS,
    Source,
    format_of,
    kind_of_column,
    open_source,
    reading,
)

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
    "propensity": r"^(propensity(_score)?|pscore|action_prob(ability)?)$",
    "position": r"^(position|pos|rank|slot|place)$",
}
# how many rows' cells are looked at one by one
_CELLS = 2000
# ids of a catalogue that are compared with those of the events
_IDS = 2_000_000
# of a table without names: what a column of each part is called
_NAMES = {"kind": "action"}


@dataclass(frozen=True, slots=True)
class LookedColumn:
    """What the first rows say of a column.

    Attributes:
        name: of the column.
        kind: list, time, number, boolean or text.
        filled: rows with a value.
        different: different values.
        example: one of them.
        cells: of the first rows, without the empty ones, as texts.
        separator: between the values of a set; none: it is no set in a text.
    """

    name: str
    kind: str
    filled: int
    different: int
    example: str
    cells: tuple[str, ...]
    separator: str | None

    @property
    def examples(self) -> str:
        """Two of its values, as a message shows them."""
        some = list(dict.fromkeys(self.cells))[:2]
        return ", ".join(repr(cell[:40]) for cell in some) or "nothing"


@dataclass(slots=True)
class LookedFile:
    """One file, looked at.

    Attributes:
        path: of the file.
        source: what DuckDB reads.
        encoding: of a text.
        layout: of a text without a header; none: the file names its columns.
        columns: by name.
        roles: name of the column by the part that it plays.
        by_content: parts that were found by what the cells hold, not by a name.
    """

    path: Path
    source: Source
    encoding: str
    layout: TextLayout | None
    columns: dict[str, LookedColumn]
    roles: dict[str, str]
    by_content: set[str] = field(default_factory=set)

    @property
    def missing(self) -> list[str]:
        """Parts that a file of events must have, and that were not found in it."""
        missing = [role for role in ("user", "time") if role not in self.roles]
        return missing if self.roles.keys() & {"item", "shown"} else [*missing, "item"]

    @property
    def by_name(self) -> set[str]:
        """Parts that were found by the names of their columns."""
        return self.roles.keys() - self.by_content

    def why(self, role: str) -> str:
        """How the column of a part was found, for a comment."""
        column = self.columns[self.roles[role]]
        how = "by its values" if role in self.by_content else "by its name"
        return f"{how}; {column.different:,} of {column.filled:,} rows differ"


def look_at_files(connection: duckdb.DuckDBPyConnection, paths: Sequence[Path]) -> list[LookedFile]:
    """Columns and their parts, by the columns' names and, where these say nothing, by values.

    Raises:
        LogFileError: a file is missing or broken.
    """
    looked = [_look(connection, path, None) for path in paths]
    for one in looked:
        _find_by_content(one)
    _find_catalogues(connection, looked)
    return [_named(connection, one) for one in looked]


def _look(
    connection: duckdb.DuckDBPyConnection, path: Path, names: Sequence[str] | None
) -> LookedFile:
    table, layout = TableFiles(files=str(path)), None
    if path.is_file() and path.stat().st_size and format_of(path, "files") == "csv":
        encoding = encoding_of(path)
        table, layout = TableFiles(files=str(path), encoding=encoding), layout_without_header(path)
    if layout is not None:
        table = layout.table(path, table.encoding, names)
    source = open_source(connection, table, Path("/"), "files")
    columns = {}
    with reading(str(path)):
        rows = connection.execute(f"FROM ({source.sql}) LIMIT {_CELLS}").fetchall()
        for at, (name, declared) in enumerate(source.columns.items()):
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
            cells = tuple(str(row[at]) for row in rows if row[at] not in (None, ""))
            separator = set_separator(cells) if kind == "text" else None
            columns[name] = LookedColumn(
                name, kind, filled, different, str(example)[:60], cells, separator
            )
    return LookedFile(path, source, table.encoding, layout, columns, _roles(columns))


def _roles(columns: dict[str, LookedColumn]) -> dict[str, str]:
    """Which column plays which part, by their names; no column plays two."""
    roles: dict[str, str] = {}
    for role, pattern in _ROLES.items():
        found = [n for n in columns if re.match(pattern, n.split(":")[0], re.IGNORECASE)]
        found = [name for name in found if name not in roles.values() and columns[name].filled]
        alternatives = pattern.strip("^()$").split("|")
        found.sort(key=lambda name: _place(name, alternatives))
        if role == "clicked":
            # flags beside the list may be called so too: what was clicked is among what was shown
            shown = split_cells(columns[roles["shown"]].cells) if "shown" in roles else None
            found = [
                name
                for name in found
                if columns[name].different > 2
                and (shown is None or overlap(split_cells(columns[name].cells), shown) > 0.1)
            ]
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


def _find_by_content(one: LookedFile) -> None:
    """Add the parts that no name told, for files without names or with unusual ones."""
    if not one.missing:
        return
    _first(one, "shown", lambda column: marked_separator(column.cells) is not None)
    _first(one, "time", _is_time)
    if "time" not in one.roles:
        return  # what has no time is a catalogue
    ids = {c.name for c in one.columns.values() if c.different > 1 and is_id(c.cells)}
    for role in ("user",) if "shown" in one.roles else ("user", "item"):
        # few different values are a rating or a group; of two columns that fit the user is first
        _first(one, role, lambda c: c.name in ids and _comes_again(c) and not _is_rating(c))
    if "shown" in one.roles:
        _first(one, "request", lambda c: c.name in ids and c.different == c.filled)
    elif not one.roles.keys() & {"click", "rating", "kind"}:
        _first(one, "kind", lambda c: c.different < 30 and bool(SHOWN_KINDS & {*c.cells}))
        if "kind" not in one.roles:
            _first(one, "rating", _is_rating)


def _first(one: LookedFile, role: str, fits: Callable[[LookedColumn], bool]) -> None:
    """Give a part that nothing plays yet to the first column that fits and plays none."""
    if role in one.roles:
        return
    for column in one.columns.values():
        if _free(one, column) and fits(column):
            _found(one, role, column)
            return


def _is_time(column: LookedColumn) -> bool:
    if column.different < 2:
        return False
    dated = column.kind == "text" and is_date(column.cells)
    return column.kind == "time" or dated or epoch_unit(column.cells) is not None


def _comes_again(column: LookedColumn) -> bool:
    """Whether there are many values, and each in several rows."""
    return min(20, 0.05 * column.filled) < column.different <= 0.9 * column.filled


def _is_rating(column: LookedColumn) -> bool:
    return column.kind == "number" and 2 < column.different <= 11


def _free(one: LookedFile, column: LookedColumn) -> bool:
    return column.name not in one.roles.values() and bool(column.cells)


def _found(one: LookedFile, role: str, column: LookedColumn) -> None:
    one.roles[role] = column.name
    one.by_content.add(role)


def _find_catalogues(connection: duckdb.DuckDBPyConnection, looked: Sequence[LookedFile]) -> None:
    """Find the column of ids in files about the items or the users of the files of events."""
    rest = [one for one in looked if one.missing and not {"item", "user"} & one.by_name]
    for role in ("item", "user"):
        known = {id_ for one in looked if not one.missing for id_ in _ids(connection, one, role)}
        fit = [
            (len(known & ids) / len(known | ids), at, name)
            for at, one in enumerate(rest)
            for name, column in one.columns.items()
            if known and column.filled and column.different == column.filled
            # ids of users and of items may be the same numbers: the nearest set is meant
            if len(known & (ids := _every_value(connection, one, name))) >= 0.5 * len(known)
        ]
        if not fit:
            continue
        _, at, name = max(fit, key=lambda one: (one[0], -one[1]))
        one = rest.pop(at)
        one.roles = {role: name}
        one.by_content = {role}


def _ids(connection: duckdb.DuckDBPyConnection, one: LookedFile, role: str) -> set[str]:
    """Ids of users or items in a file of events; of lists, those in the first rows."""
    if role == "item" and "shown" in one.roles:
        return _shown_ids(one)
    return _every_value(connection, one, one.roles[role]) if role in one.roles else set()


def _shown_ids(one: LookedFile) -> set[str]:
    shown = one.columns[one.roles["shown"]].cells
    entries = split_cells(shown)
    return {entry[:-2] for entry in entries} if marked_separator(shown) else entries


def _every_value(connection: duckdb.DuckDBPyConnection, one: LookedFile, column: str) -> set[str]:
    with reading(str(one.path)):
        rows = connection.execute(
            f"SELECT DISTINCT {quoted(column)}::VARCHAR FROM ({one.source.sql}) LIMIT {_IDS}"
        ).fetchall()
    return {str(row[0]) for row in rows}


def _named(connection: duckdb.DuckDBPyConnection, one: LookedFile) -> LookedFile:
    """A file without a header again, its columns called by what they hold."""
    if one.layout is None or not one.roles:
        return one
    called = {column: _NAMES.get(role, role) for role, column in one.roles.items()}
    if "shown" in one.roles:
        shown = _shown_ids(one)
        for column in one.columns.values():
            free = _free(one, column) and column.separator and "history" not in called.values()
            if free and overlap(split_cells(column.cells), shown) > 0.5:
                called[column.name] = "history"
    again = _look(connection, one.path, [called.get(name, name) for name in one.columns])
    again.roles = {role: called[column] for role, column in one.roles.items()}
    again.by_content = one.by_content
    return again
