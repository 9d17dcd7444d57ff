"""The events of a log in order, in one Parquet file, and the way back to event structs.

The file has a row an event, sorted by time, user, item, request and kind, so that a click never
comes before its impression and every reading gives the same numbers. Where the log says when
events arrived, ``known`` is that time, and the first one to sort by.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from streaming.events import Click, Impression
from streaming.logs.event_log import Event
from streaming.logs.log_file import CLICK
from streaming.logs.negatives import SampledRows
from streaming.logs.rules import literal
from streaming.logs.stage import Stage

EVENTS = "events.parquet"
SUMMARY = "summary.json"
_ROW_GROUP = 100_000
# contexts of a row group that are decoded once each
_DICTIONARIES = ["user_id", "item_id", "context"]
_ALWAYS = ("ts", "kind", "user_id", "item_id", "request_id")
_SOMETIMES = ("position", "propensity", "value", "context")


@dataclass(frozen=True, slots=True)
class LogSummary:
    """What is known of a sorted log.

    Attributes:
        impressions: how many.
        actions: how many of each kind.
        first_ts: when the first event became known, ms.
        last_ts: the last one.
        duplicates: rows that were the same request, user and item as another one.
        rows: rows that were looked at.
        unreadable: rows that were skipped, by reason.
        first_unreadable: the first of them, for people.
        contexts: kind of each context field.
        sampling_rate: share of what was not clicked that the log holds; 1: all of it.
        keyed: whether requests come from the log: then they may hold several items.
    """

    impressions: int
    actions: dict[str, int]
    first_ts: int
    last_ts: int
    duplicates: int
    rows: int
    unreadable: dict[str, int]
    first_unreadable: list[str]
    contexts: dict[str, str]
    sampling_rate: float = 1.0
    keyed: bool = False
    kinds: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        """All events."""
        return self.impressions + sum(self.actions.values())

    def write(self, path: Path) -> None:
        """Keep it."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> LogSummary:
        """What :meth:`write` kept."""
        return msgspec.json.decode(path.read_bytes(), type=cls)


def write_sorted(stage: Stage, folder: Path) -> LogSummary:
    """Sort the rows of a stage, on disk where they do not fit in memory, and write the events.

    Args:
        stage: that has been read.
        folder: gets ``events.parquet`` and ``summary.json``.
    """
    log = stage.log
    keyed = log.events.request is not None or log.events.lists is not None
    duplicates = _name_requests(stage, keyed)
    acted = log.feedback is not None
    columns = _columns(stage)
    kinds = stage.kinds + ([k for k in log.kinds if k not in stage.kinds] if acted else [])
    path = folder / EVENTS
    rate = 1.0
    if log.negatives is not None:
        rate = SampledRows(stage, log.negatives, kinds).write(path, _ROW_GROUP)
    else:
        selects = [_impressions(columns)]
        selects += [_row_actions(at, columns) for at in range(len(stage.kinds))]
        if acted:
            selects.append(_feedback(kinds, columns, keyed))
        first = "known, " if "known" in columns else ""
        stage.connection.execute(
            f"COPY (SELECT {', '.join(columns)} FROM ({' UNION ALL '.join(selects)}) ORDER BY"
            f" {first}ts, user_id, item_id, request_id NULLS LAST, abs(kind), kind)"
            f" TO {literal(str(path))} (FORMAT parquet, ROW_GROUP_SIZE {_ROW_GROUP})"
        )
    return _summary(stage, folder, kinds, duplicates=duplicates, rate=rate, keyed=keyed)


def _summary(
    stage: Stage, folder: Path, kinds: list[str], *, duplicates: int, rate: float, keyed: bool
) -> LogSummary:
    counted = dict(
        stage.connection.execute(
            f"SELECT kind, count(*) FROM read_parquet({literal(str(folder / EVENTS))}) GROUP BY 1"
        ).fetchall()
    )
    clock = "known" if "known" in _columns(stage) else "ts"
    first, last = stage.one(
        f"SELECT min({clock}), max({clock}) FROM read_parquet({literal(str(folder / EVENTS))})"
    )
    actions = {
        name: counted.get(at, 0) + counted.get(-at, 0) for at, name in enumerate(kinds, start=1)
    }
    found = LogSummary(
        impressions=counted.get(0, 0),
        actions=actions,
        first_ts=first,
        last_ts=last,
        duplicates=duplicates,
        rows=stage.unreadable.rows,
        unreadable=stage.unreadable.reasons,
        first_unreadable=[str(row) for row in stage.unreadable.first],
        contexts=stage.contexts,
        sampling_rate=rate,
        keyed=keyed,
        kinds=kinds,
    )
    found.write(folder / SUMMARY)
    return found


def _columns(stage: Stage) -> list[str]:
    """Columns of the file: those that say something."""
    events = stage.log.events
    there = ["ts", "kind", "user_id", "item_id", "request_id"]
    if events.arrival or (stage.log.feedback and stage.log.feedback.arrival):
        there.append("known")
    if events.position or (events.lists and events.lists.position):
        there.append("position")
    if events.propensity:
        there.append("propensity")
    if events.context or (events.lists and events.lists.each):
        there.append("context")
    rules = stage.log.kinds.values()
    if any(rule.value for rule in rules) or (stage.log.feedback and stage.log.feedback.value):
        there.append("value")
    return there


def _name_requests(stage: Stage, keyed: bool) -> int:
    """Give every row its request's id; returns how many rows were the same as another one.

    A row without a request is one of its own, named by user, time and item; a second equal one
    gets a number. In a request that the log names, a second equal row is dropped: it is the same
    impression.
    """
    unit = getattr(stage.log.events.time, "unit", None)
    clock = "ts // 1000" if unit == "s" else "ts"
    if keyed and stage.log.events.request is None:
        name, same = f"user_id || '-' || ({clock})", "request_id, user_id, item_id"
    elif keyed:
        name, same = "request", "request_id, user_id, item_id"
    else:
        name, same = f"user_id || '-' || ({clock}) || '-' || item_id", "ts, user_id, item_id"
    run = stage.connection.execute
    run(
        "CREATE VIEW named AS"
        f" SELECT * EXCLUDE (request), {name} AS request_id, rowid AS row_at FROM shown"
    )
    total, different = stage.one(f"SELECT count(*), count(DISTINCT hash({same})) FROM named")
    if total == different:
        run("CREATE VIEW rows AS SELECT * FROM named")
        return 0
    hits = ", ".join(f"hit{at}{' DESC' if keyed else ''}" for at in range(len(stage.kinds)))
    order = (
        "known, ts, " + hits
        if keyed and hits
        else f"known, context, position{', ' + hits if hits else ''}"
    )
    run(
        f"CREATE TABLE repeats AS SELECT row_at, row_number() OVER (PARTITION BY {same} ORDER BY"
        f" {order}) AS nth FROM named SEMI JOIN (SELECT {same} FROM named GROUP BY ALL HAVING"
        f" count(*) > 1) AS twice USING ({same})"
    )
    (again,) = stage.one("SELECT count(*) FROM repeats WHERE nth > 1")
    run("DELETE FROM repeats WHERE nth = 1")
    if keyed:
        run("CREATE VIEW rows AS SELECT * FROM named ANTI JOIN repeats USING (row_at)")
    else:
        run(
            "CREATE VIEW rows AS SELECT * REPLACE (request_id || coalesce('.' || nth, '') AS"
            " request_id) FROM named LEFT JOIN repeats USING (row_at)"
        )
    return again


def _impressions(columns: list[str]) -> str:
    cells = {"kind": "0::SMALLINT AS kind", "value": "NULL::DOUBLE AS value"}
    return f"SELECT {', '.join(cells.get(name, name) for name in columns)} FROM rows"


def _row_actions(at: int, columns: list[str]) -> str:
    """Actions in the same row as their impression; never before it."""
    cells = {
        "ts": f"greatest(coalesce(time{at}, ts), ts) AS ts",
        "known": f"greatest(coalesce(time{at}, ts), known) AS known",
        "kind": f"{at + 1}::SMALLINT AS kind",
        "value": f"value{at} AS value",
        "position": "NULL::INTEGER AS position",
        "propensity": "NULL::DOUBLE AS propensity",
        "context": "NULL::VARCHAR AS context",
    }
    return f"SELECT {', '.join(cells.get(name, name) for name in columns)} FROM rows WHERE hit{at}"


def _feedback(kinds: list[str], columns: list[str], keyed: bool) -> str:
    """Actions in files of their own; their kind is negative, for they name their own events."""
    number = " ".join(f"WHEN {literal(name)} THEN {-at}" for at, name in enumerate(kinds, 1))
    cells = {
        "kind": f"(CASE action {number} END)::SMALLINT AS kind",
        "request_id": f"{'request' if keyed else 'NULL::VARCHAR'} AS request_id",
        "position": "NULL::INTEGER AS position",
        "propensity": "NULL::DOUBLE AS propensity",
        "context": "NULL::VARCHAR AS context",
    }
    return f"SELECT {', '.join(cells.get(name, name) for name in columns)} FROM acted"


class SortedEvents:
    """The events of such a file, by number.

    Args:
        folder: of the file.
    """

    def __init__(self, folder: Path) -> None:
        self.summary = LogSummary.read(folder / SUMMARY)
        self._path = folder / EVENTS
        with pq.ParquetFile(self._path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            self._starts = np.cumsum([0] + [g.num_rows for g in groups]).tolist()
            self._columns = file.schema_arrow.names
            self._dictionaries = [n for n in _DICTIONARIES if n in self._columns]
            self._clock = "known" if "known" in self._columns else "ts"
            at = self._columns.index(self._clock)
            self._first = [g.column(at).statistics.min for g in groups]

    def index_at(self, ts: int) -> int:
        """Number of the first event known at or after this time; the count if there is none."""
        group = max(0, bisect_right(self._first, ts - 1) - 1)
        with pq.ParquetFile(self._path) as file:
            times = file.read_row_group(group, columns=[self._clock]).column(0).to_numpy()
        return int(self._starts[group] + np.searchsorted(times, ts))

    def events(self, start: int, stop: int) -> Iterator[Event]:
        """The events numbered ``start`` up to, not including, ``stop``."""
        stop = min(stop, self._starts[-1])
        if start >= stop:
            return
        group = bisect_right(self._starts, start) - 1
        with pq.ParquetFile(self._path, read_dictionary=self._dictionaries) as file:
            while group < len(self._first) and self._starts[group] < stop:
                first = self._starts[group]
                table = file.read_row_group(group)
                low = max(0, start - first)
                yield from self._decoded(table.slice(low, min(stop - first, len(table)) - low))
                group += 1

    def arrivals(self, start: int, stop: int) -> Iterator[int]:
        """When the events numbered ``start`` up to, not including, ``stop`` became known, ms."""
        with pq.ParquetFile(self._path) as file:
            for group, first in enumerate(self._starts[:-1]):
                if first < stop and self._starts[group + 1] > start:
                    times = file.read_row_group(group, columns=[self._clock]).column(0).to_numpy()
                    yield from times[max(0, start - first) : stop - first].tolist()

    def _decoded(self, table: Any) -> Iterator[Event]:  # noqa: ANN401 - untyped library
        summary = self.summary
        make = partial(_action, keyed=summary.keyed, kinds=summary.kinds)
        columns: list[Iterable[Any]] = [_values(table, name) for name in _ALWAYS]
        more = [name for name in _SOMETIMES if name in self._columns]
        if not more:  # in half the time
            for ts, kind, user, item, request in zip(*columns, strict=True):
                if kind == 0:
                    yield Impression(request_id=request, user_id=user, item_id=item, ts=ts)
                else:
                    yield make(ts, kind, user, item, request, None)
            return
        nothing = [None] * len(table)
        columns += [_values(table, name) if name in more else nothing for name in _SOMETIMES[:3]]
        columns.append(_contexts(table) if "context" in more else nothing)
        for ts, kind, user, item, request, position, propensity, value, context in zip(
            *columns, strict=True
        ):
            if kind == 0:
                yield Impression(
                    request_id=request,
                    user_id=user,
                    item_id=item,
                    ts=ts,
                    position=position,
                    propensity=propensity,
                    context=context,
                )
            else:
                yield make(ts, kind, user, item, request, value)


def _action(  # noqa: PLR0917 - called for every action: names would cost time
    ts: int,
    kind: int,
    user: str,
    item: str,
    request: str | None,
    value: float | None,
    *,
    keyed: bool,
    kinds: list[str],
) -> Click:
    name = kinds[abs(kind) - 1]
    if kind < 0 or request is None:
        event = f"{user}-{ts}-{item}-{name}"
    elif keyed:
        event = f"{request}-{item}" if name == CLICK else f"{request}-{item}-{name}"
    else:
        event = request if name == CLICK else f"{request}-{name}"
    if name == CLICK and value is None:
        return Click(event_id=event, user_id=user, item_id=item, ts=ts, request_id=request)
    return Click(
        event_id=event,
        user_id=user,
        item_id=item,
        ts=ts,
        request_id=request,
        action=None if name == CLICK else name,
        value=value,
    )


def _values(table: Any, name: str) -> list[Any]:  # noqa: ANN401 - untyped library
    """A column as Python objects, each text of a dictionary once."""
    column = table.column(name).combine_chunks()
    if not pa.types.is_dictionary(column.type):
        # by way of NumPy: a fifth of the time of to_pylist
        if pa.types.is_integer(column.type) and not column.null_count:
            return column.to_numpy().tolist()  # type: ignore[no-any-return]
        if pa.types.is_string(column.type):
            return column.to_numpy(zero_copy_only=False).tolist()  # type: ignore[no-any-return]
        return column.to_pylist()  # type: ignore[no-any-return]
    texts = [*column.dictionary.to_pylist(), None]
    codes = column.indices.fill_null(len(texts) - 1).to_numpy(zero_copy_only=False)
    return [texts[code] for code in codes.tolist()]


def _contexts(table: Any) -> list[dict[str, Any] | None]:  # noqa: ANN401 - untyped library
    known: dict[str | None, dict[str, Any] | None] = {None: None}
    found = []
    for text in _values(table, "context"):
        if text not in known:
            fields = msgspec.json.decode(text)
            known[text] = {k: v for k, v in fields.items() if v not in (None, [])} or None
        found.append(known[text])
    return found
