"""Counts rows that cannot be read, by reason, and keeps the first of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import duckdb

from streaming.logs.find_line import BadRow

# skipped rows that are kept as examples
KEPT = 10


@dataclass(slots=True)
class Unreadable:
    """Rows that were skipped.

    Attributes:
        rows: all rows that were read, with the skipped ones.
        reasons: how many for each reason.
        first: the first ones.
    """

    rows: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    first: list[BadRow] = field(default_factory=list)

    @property
    def count(self) -> int:
        """All skipped rows."""
        return sum(self.reasons.values())


def rejected_lines(
    connection: duckdb.DuckDBPyConnection,
) -> list[tuple[str, int, list[BadRow]]]:
    """Rows that the CSV reader refused since the last call."""
    there = connection.execute(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'reject_errors'"
    ).fetchone()
    if not there or not there[0]:
        return []
    found = connection.execute(
        "SELECT error_type::VARCHAR, count(DISTINCT (scan_id, file_id, line))"
        " FROM reject_errors"
        " WHERE scan_id = (SELECT max(scan_id) FROM reject_errors) GROUP BY 1"
    ).fetchall()
    out = []
    for kind, count in found:
        rows = connection.execute(
            "SELECT s.file_path, e.line, any_value(e.column_name), any_value(e.csv_line),"
            " any_value(e.error_message)"
            " FROM reject_errors e JOIN reject_scans s USING (scan_id, file_id)"
            " WHERE e.error_type::VARCHAR = ? AND e.scan_id ="
            " (SELECT max(scan_id) FROM reject_errors) GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?",
            [kind, KEPT],
        ).fetchall()
        reason = kind.lower().replace("_", " ")
        kept = [
            BadRow(
                file,
                line,
                f"{reason} ({' '.join(message.split())[:90]})",
                column or "",
                {"": (text or "").strip("\r\n")[:120]},
            )
            for file, line, column, text, message in rows
        ]
        out.append((reason, count, kept))
    return out
