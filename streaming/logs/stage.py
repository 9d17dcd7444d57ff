"""From declared files to one table of sound rows, in a database on disk.

The table ``shown`` has a row an impression, ``acted`` a row an action in files of its own.
Rows that cannot be read are counted by reason, and the first of them are kept for a look.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb

from settings.errors import ConfigurationError, LogFileError
from streaming.events import MAX_ID_BYTES
from streaming.logs.columns import ReadableRows, first_reason, time_reasons
from streaming.logs.find_line import BadRow, find_lines
from streaming.logs.leaks import refuse_results
from streaming.logs.log_file import CLICK, ContextColumn, LogFile, TableFiles, time_column
from streaming.logs.rules import literal, quoted
from streaming.logs.sources import BAD, Source, open_source, reading, scratch_folder
from streaming.logs.unreadable import KEPT, Unreadable, rejected_lines

MEMORY_LIMIT = "1GB"
# a number with more different values in the first rows is no category
_CATEGORIES = 50
# a request that is made up of user, time and item must fit in an id
_LONGEST = MAX_ID_BYTES - 40


class Stage:
    """A scratch database with the rows of a log. Use it in ``with``: it is deleted behind it.

    Args:
        log: the declaration.
        folder: where relative paths start.
        memory: what DuckDB may hold; more is on disk.
        threads: of DuckDB; none: one a core.
        max_bad_share: overrides the declaration's, for whoever looks at broken files.
    """

    def __init__(
        self,
        log: LogFile,
        folder: Path,
        *,
        memory: str = MEMORY_LIMIT,
        threads: int | None = None,
        max_bad_share: float | None = None,
    ) -> None:
        self.log = log
        self._folder = folder
        self._share = log.max_bad_share if max_bad_share is None else max_bad_share
        # the system's own scratch may be memory: beside the user's caches is disk
        self._scratch = tempfile.TemporaryDirectory(prefix="headrace-log-", dir=scratch_folder())
        self.connection = duckdb.connect(str(Path(self._scratch.name) / "stage.duckdb"))
        self.connection.execute(f"SET memory_limit = '{memory}'")
        self.connection.execute(f"SET temp_directory = {literal(self._scratch.name)}")
        self.connection.execute("SET TimeZone = 'UTC'")
        self.connection.execute("SET enable_progress_bar = false")
        if threads is not None:
            self.connection.execute(f"SET threads = {threads}")
        self.unreadable = Unreadable()
        self.contexts: dict[str, str] = {}

    def __enter__(self) -> Stage:
        """The stage itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Delete it."""
        self.connection.close()
        self._scratch.cleanup()

    @property
    def kinds(self) -> list[str]:
        """Kinds of action that a row of ``shown`` may hold: column ``hit<number>`` each."""
        kinds = self.log.kinds
        return [name for name, rule in kinds.items() if rule.when or self._implied(name)]

    def _implied(self, name: str) -> bool:
        return name == CLICK and bool(self.log.events.lists or self.log.negatives)

    def read(self) -> None:
        """Fill the tables.

        Raises:
            ConfigurationError: the declaration does not fit the files.
            LogFileError: files are missing or broken, or too many rows are.
        """
        self._shown()
        if self.log.feedback is not None:
            self._acted()

    def one(self, sql: str) -> tuple[int, ...]:
        """The only row of a query of numbers."""
        row = self.connection.execute(sql).fetchone()
        return row if row is not None else ()

    def _shown(self) -> None:
        events = self.log.events
        wanted = [events.user, time_column(events.time).column]
        wanted += [events.item] if events.item else [events.lists.shown] if events.lists else []
        rows = self._open(events, "events", wanted)
        ms = rows.time(time_column(events.time), "time")
        cells = {"user_id": rows.text(events.user), "ts": ms}
        cells["known"] = rows.arrival(events.arrival, ms)
        cells["given"] = f"{quoted(time_column(events.time).column)} IS NOT NULL"
        for key, column in (("request", events.request), ("position", events.position)):
            rows.check(column, key)
        cells["request"] = rows.text(events.request) if events.request else "NULL::VARCHAR"
        cells["position"] = (
            f"TRY_CAST({quoted(events.position)} AS INTEGER)" if events.position else "NULL::INT"
        )
        cells["propensity"] = "NULL::DOUBLE"
        if events.propensity:
            rows.check(events.propensity, "propensity")
            cells["propensity"] = rows.number(events.propensity)
        cells["context"] = self._context(rows, events.fields)
        rules = self._hits(rows, cells)
        if events.lists is not None:
            cells |= self._list_cells(rows)
        else:
            cells["item_id"] = rows.text(events.item or "")
        if events.where is not None:
            rules["__where"] = rows.rule(events.where, "where")
        reasons = self._id_reasons(events.request is not None) + time_reasons("time")
        reasons += [
            (f"hit{at} IS NULL", f"{name}: the rule has no answer, for a value is missing")
            for at, name in enumerate(self.kinds)
        ]
        refuse_results(self.log)
        self._fill("shown", rows, cells, rules, reasons=reasons, keys=[*wanted, *rows.typed])
        (count,) = self.one("SELECT count(*) FROM shown")
        if not count:
            self._nothing(rows.source)

    def _nothing(self, source: Source) -> None:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.unreadable.reasons.items())
        raise LogFileError(
            f"{source.title} holds no row that can be used ({self.unreadable.rows:,} were read"
            f"{'; ' + reasons if reasons else ''}): does events.where leave any?"
            + "".join(f"\n  {row}" for row in self.unreadable.first[:3])
        )

    def _hits(self, rows: ReadableRows, cells: dict[str, str]) -> dict[str, str]:
        """Whether each kind of action happened; when and with which value goes into ``cells``."""
        rules = {}
        for at, name in enumerate(self.kinds):
            action = self.log.kinds[name]
            key = "click" if name == CLICK and self.log.events.click else f"actions.{name}.when"
            rules[f"hit{at}"] = rows.rule(action.when, key) if action.when else "true"
            cells[f"time{at}"] = "NULL::BIGINT"
            if action.time is not None:
                cells[f"time{at}"] = rows.time(time_column(action.time), f"actions.{name}.time")
            cells[f"value{at}"] = "NULL::DOUBLE"
            if action.value is not None:
                rows.check(action.value, f"actions.{name}.value")
                cells[f"value{at}"] = rows.number(action.value)
        return rules

    def _list_cells(self, rows: ReadableRows) -> dict[str, str]:
        """The columns of a row that holds many items; they are unnested later."""
        lists = self.log.events.lists
        if lists is None:
            return {}
        rows.check(lists.shown, "lists.shown")
        rows.check(lists.clicked, "lists.clicked")
        entries = rows.listed(lists.shown, lists.separator)
        cells = {"__entries": entries, "__places": f"range(len({entries}))"}
        if lists.clicked is not None:
            cells["__clicked"] = rows.listed(lists.clicked, lists.separator)
        for at, (name, column) in enumerate(lists.each.items()):
            rows.check(column, f"lists.each.{name}")
            cells[f"__each_{at}"] = rows.listed(column, lists.separator)
        return cells

    def _context(self, rows: ReadableRows, fields: dict[str, ContextColumn]) -> str:
        """The context as a JSON text."""
        parts = []
        for name, one in fields.items():
            rows.check(one.column, f"context.{name}")
            kind = one.kind or self._context_kind(rows, one.column)
            self.contexts[name] = kind
            if kind == "set":
                value = rows.listed(one.column, one.separator)
            else:
                value = rows.number(one.column) if kind == "number" else rows.text(one.column)
            parts.append(f"{quoted(name)} := {value}")
        return f"to_json(struct_pack({', '.join(parts)}))::VARCHAR" if parts else "NULL::VARCHAR"

    def _context_kind(self, rows: ReadableRows, column: str) -> str:
        kind = rows.kind(column)
        if kind == "list":
            return "set"
        if kind != "number":
            return "category"
        (different,) = self.one(
            f"SELECT count(DISTINCT {quoted(column)}) FROM (FROM ({rows.sql}) LIMIT 20000)"
        )
        return "number" if different > _CATEGORIES else "category"

    def _acted(self) -> None:
        feedback = self.log.feedback
        if feedback is None:
            return
        wanted = [feedback.item, feedback.user, time_column(feedback.time).column]
        rows = self._open(feedback, "feedback", wanted)
        for key in ("request", "kind", "value"):
            rows.check(getattr(feedback, key), key)
        cells = {
            "user_id": rows.text(feedback.user),
            "item_id": rows.text(feedback.item),
            "ts": (ms := rows.time(time_column(feedback.time), "time")),
            "known": rows.arrival(feedback.arrival, ms),
            "request": rows.text(feedback.request) if feedback.request else "NULL::VARCHAR",
            "action": rows.text(feedback.kind) if feedback.kind else "'click'",
            "value": rows.number(feedback.value) if feedback.value else "NULL::DOUBLE",
        }
        cells["given"] = f"{quoted(time_column(feedback.time).column)} IS NOT NULL"
        rules = {"__where": rows.rule(feedback.where, "where")} if feedback.where else {}
        reasons = self._id_reasons(feedback.request is not None) + time_reasons("time")
        reasons.append(("action IS NULL", "kind: missing"))
        self._fill("acted", rows, cells, rules, reasons=reasons, keys=[*wanted, *rows.typed])
        known = self.log.kinds
        there = self.connection.execute(
            "SELECT action, count(*) FROM acted GROUP BY 1 ORDER BY 2 DESC LIMIT 50"
        ).fetchall()
        unknown = [f"{name} ({count:,})" for name, count in there if name not in known]
        if unknown:
            raise ConfigurationError(
                f"feedback.kind: the files hold kinds that are not declared: {', '.join(unknown)};"
                f' add [actions.{unknown[0].split(" ")[0]}] with label = 1, 0 or "none"'
                " (for features only), or leave them out with feedback.where"
            )

    def _open(self, table: TableFiles, place: str, wanted: Sequence[str]) -> ReadableRows:
        present = [name for name in wanted if name not in table.derive]
        source = open_source(self.connection, table, self._folder, place, present)
        rows = ReadableRows(self.connection, table, source, place)
        for name in wanted:
            rows.check(name, "columns")
        return rows

    def _typed(self, rows: ReadableRows) -> list[tuple[str, str, str]]:
        """Columns of texts that rules read as something else: name, value, kind."""
        return [
            (name, value, rows.kind(name))
            for name, value in rows.typed.items()
            if value != quoted(name) and rows.columns[name] == "VARCHAR"
        ]

    def _id_reasons(self, has_request: bool) -> list[tuple[str, str]]:
        lengths = ["strlen(user_id)", "strlen(item_id)", "strlen(coalesce(request, ''))"]
        longest = f"greatest({', '.join(lengths)})" if has_request else " + ".join(lengths[:2])
        longest += f" > {_LONGEST}"
        return [
            ("user_id IS NULL", "user: missing"),
            ("item_id IS NULL", "item: missing"),
            (longest, f"an id is longer than {_LONGEST} bytes"),
        ] + ([("request IS NULL", "request: missing")] if has_request else [])

    def _fill(
        self,
        table: str,
        rows: ReadableRows,
        cells: dict[str, str],
        rules: dict[str, str],
        *,
        reasons: Sequence[tuple[str, str]],
        keys: Sequence[str],
    ) -> None:
        """Make one table, and count what could not be read.

        Rules see typed columns under the columns' own names; everything else sees the raw ones.

        Args:
            table: to make.
            rows: to read.
            cells: column of the table to expression over raw columns.
            rules: column of the table to expression over typed columns; ``__where`` is a filter.
            reasons: conditions over the table's columns, and what each means.
            keys: raw columns that are kept of unreadable rows.
        """
        keys = list(dict.fromkeys(keys))
        raw = {f"__c_{name}": sql for name, sql in cells.items()}
        raw |= {f"__r_{at}": f"{quoted(name)}::VARCHAR" for at, name in enumerate(keys)}
        typed = self._typed(rows)
        raw |= {
            f"__b_{at}": f"{quoted(name)} IS NOT NULL AND {value} IS NULL"
            for at, (name, value, _) in enumerate(typed)
        }
        raw["__j"] = BAD if rows.source.format == "jsonl" else "NULL::VARCHAR"
        replaced = ", ".join(f"{value} AS {quoted(name)}" for name, value in rows.typed.items())
        star = f"* REPLACE ({replaced})" if replaced else "*"
        query = f"SELECT {star}, {', '.join(f'{v} AS {quoted(k)}' for k, v in raw.items())}"
        query += f" FROM ({rows.sql})"
        lists = table == "shown" and self.log.events.lists is not None
        if lists:
            query = self._unnested(query)
        outer = {name: f"__c_{name}" for name in cells if not name.startswith("__")} | rules
        if lists:
            outer |= self._list_outcome()
        named = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in outer.items())
        extra = [f"__r_{at}" for at in range(len(keys))] + [f"__b_{at}" for at in range(len(typed))]
        query = f"SELECT {', '.join([named, '__j', *extra])} FROM ({query})"
        bad = [("__j IS NOT NULL", "not JSON")]
        bad += [(f"__b_{at}", f"{name}: not a {kind}") for at, (name, _, kind) in enumerate(typed)]
        kept = ", ".join(quoted(name) for name in outer if not name.startswith("__"))
        looked_at = ", ".join(f"__r_{at}" for at in range(len(keys)))
        condition = "__where OR reason IS NOT NULL" if "__where" in rules else "true"
        sql = (
            f"CREATE TABLE {table} AS SELECT {kept}, reason,"
            f" CASE WHEN reason IS NOT NULL THEN [{looked_at}] END AS cells"
            f" FROM (SELECT *, {first_reason([*bad, *reasons])} AS reason FROM ({query}))"
            f" WHERE {condition}"
        )
        with reading(rows.source.title):
            self.connection.execute(sql)
        self._count_bad(table, rows, keys)

    def _unnested(self, query: str) -> str:
        lists = self.log.events.lists
        count = len(lists.each) if lists is not None else 0
        each = "".join(f", unnest(__c___each_{at}) AS __one_{at}" for at in range(count))
        return (
            "SELECT *, unnest(__c___entries) AS __entry, unnest(__c___places) AS __place"
            f"{each} FROM ({query})"
        )

    def _list_outcome(self) -> dict[str, str]:
        """Item, click, place and further context of one entry of a list."""
        lists = self.log.events.lists
        if lists is None:
            return {}
        if lists.mark is not None:
            mark = f"'^(.*)' || regexp_escape({literal(lists.mark)}) || '([01])$'"
            found = {
                "item_id": f"nullif(regexp_extract(__entry, {mark}, 1), '')",
                "hit0": f"regexp_extract(__entry, {mark}, 2) = '1'",
            }
        else:
            found = {
                "item_id": "nullif(trim(__entry), '')",
                "hit0": "list_contains(__c___clicked, trim(__entry))",
                # clicks whose item is not in the list label nothing; the first entry counts them
                "unlisted": "CASE WHEN __place = 0 THEN len(list_filter(list_distinct("
                "list_transform(__c___clicked, lambda x: trim(x))), lambda x: NOT list_contains("
                "list_transform(__c___entries, lambda y: trim(y)), x))) ELSE 0 END",
            }
        if lists.position:
            found["position"] = "__place::INTEGER"
        if lists.each:
            parts = ", ".join(
                f"{quoted(name)} := coalesce(TRY_CAST(__one_{at} AS DOUBLE)::JSON,"
                f" to_json(__one_{at}))"
                for at, name in enumerate(lists.each)
            )
            found["context"] = (
                f"json_merge_patch(coalesce(__c_context, '{{}}'), to_json(struct_pack({parts})))"
                "::VARCHAR"
            )
        return found

    def _count_bad(self, table: str, rows: ReadableRows, keys: Sequence[str]) -> None:
        found = self.connection.execute(
            f"SELECT reason, count(*) FROM {table} WHERE reason IS NOT NULL GROUP BY 1"
        ).fetchall()
        (total,) = self.one(f"SELECT count(*) FROM {table}")
        reasons = dict(found)
        first = [
            BadRow(str(rows.source.files[0]), 0, reason, "", dict(zip(keys, cells, strict=True)))
            for reason, cells in self.connection.execute(
                f"SELECT reason, cells FROM {table} WHERE reason IS NOT NULL LIMIT {KEPT}"
            ).fetchall()
        ]
        first = find_lines(rows.source, first, rows.encoding, rows.missing)
        rejected = rejected_lines(self.connection)
        for reason, count, kept in rejected:
            reasons[reason] = reasons.get(reason, 0) + count
            first += kept
        self.connection.execute(f"DELETE FROM {table} WHERE reason IS NOT NULL")
        self.connection.execute(f"ALTER TABLE {table} DROP COLUMN cells")
        self.connection.execute(f"ALTER TABLE {table} DROP COLUMN reason")
        self.connection.execute(f"ALTER TABLE {table} DROP COLUMN given")
        here = Unreadable(total + sum(count for _, count, _ in rejected), reasons)
        here.first = sorted(first, key=lambda row: (row.file, row.line))[:KEPT]
        self.unreadable.rows += here.rows
        for reason, count in reasons.items():
            self.unreadable.reasons[reason] = self.unreadable.reasons.get(reason, 0) + count
        self.unreadable.first += here.first
        if here.count > self._share * max(here.rows, 1):
            lines = "".join(f"\n  {row}" for row in here.first[:5])
            said = ", ".join(f"{n:,} × {why}" for why, n in sorted(reasons.items()))
            raise LogFileError(
                f"{rows.source.title}: {here.count:,} of {here.rows:,} rows cannot be read"
                f" ({here.count / max(here.rows, 1):.1%}; max_bad_share allows"
                f" {self._share:.1%}): {said}{lines}"
            )
