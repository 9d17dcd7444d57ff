"""What is in a log, counted without sorting it: for `headrace log check` and `log describe`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from streaming.logs.leaks import suspects
from streaming.logs.log_file import LogFile
from streaming.logs.rules import literal
from streaming.logs.stage import Stage

PARTS = 10
# a context field that alone ranks clicks this well is likely to be known after the click only
_TOO_GOOD_AUC = 0.95
_SAMPLE = 1_000_000


@dataclass(frozen=True, slots=True)
class PartOfLog:
    """A tenth of the log's time.

    Attributes:
        start_ms: its beginning.
        impressions: rows in it.
        positives: of them.
        new_users: rows of users who were not there before this tenth.
        new_items: rows of items that were not there before it.
    """

    start_ms: int
    impressions: int
    positives: int
    new_users: int
    new_items: int


@dataclass(frozen=True, slots=True)
class LogCheck:
    """What was found.

    Attributes:
        name: of the log.
        rows: rows that were looked at.
        unreadable: rows that are skipped, by reason.
        first_unreadable: the first of them.
        impressions: what was shown (of a log of clicks only: the clicks).
        users: different ones.
        items: different ones.
        actions: rows of each kind.
        positives: impressions with a positive action in time.
        first_ms: time of the first row.
        last_ms: of the last one.
        duplicates: rows that are the same user, item and time (or request) as another one.
        joined: share of the actions in files of their own that find an impression in time; None:
            there are no such files.
        unlisted: clicks whose item is not in the list of what was shown; they label nothing.
        early: actions whose time is before their impression's; of a row it counts as of the
            impression, of a file of its own it labels nothing.
        delay_ms: how long after their impression 50, 90 and 99 % of these come.
        parts: the tenths.
        leaks: what would tell the outcome.
        sampled: negatives are drawn.
    """

    name: str
    rows: int
    unreadable: dict[str, int]
    first_unreadable: list[str]
    impressions: int
    users: int
    items: int
    actions: dict[str, int]
    positives: int
    first_ms: int
    last_ms: int
    duplicates: int
    joined: float | None
    unlisted: int
    early: int
    delay_ms: list[int]
    parts: list[PartOfLog] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)
    sampled: bool = False


def check_log(declared: LogFile, folder: Path, *, memory: str = "1GB") -> LogCheck:
    """Read a log and count; unreadable rows are reported, however many they are.

    Args:
        declared: the TOML.
        folder: where its relative paths start.
        memory: what DuckDB may hold; more is on disk.

    Raises:
        ConfigurationError: the declaration does not fit the files.
        LogFileError: files are missing or broken.
    """
    with Stage(declared, folder, memory=memory, max_bad_share=1.0) as stage:
        stage.read()
        return _counted(stage)


def _counted(stage: Stage) -> LogCheck:
    log = stage.log
    kinds = log.kinds
    positive = [f"hit{at}" for at, name in enumerate(stage.kinds) if kinds[name].label == 1]
    label = " OR ".join(positive) or "false"
    first, last, shown, positives = stage.one(
        f"SELECT min(ts), max(ts), count(*), count(*) FILTER ({label}) FROM shown"
    )
    actions = {
        name: stage.one(f"SELECT count(*) FROM shown WHERE hit{at}")[0]
        for at, name in enumerate(stage.kinds)
    }
    lists = log.events.lists
    (unlisted,) = (
        stage.one("SELECT coalesce(sum(unlisted), 0)::BIGINT FROM shown")
        if lists is not None and lists.clicked is not None
        else (0,)
    )
    early = sum(
        stage.one(f"SELECT count(*) FROM shown WHERE hit{at} AND time{at} < ts")[0]
        for at in range(len(stage.kinds))
    )
    joined, delays = None, list[int]()
    stage.connection.execute("CREATE TEMP TABLE matched (row_at BIGINT)")
    if log.feedback is not None:
        for name, count in stage.connection.execute(
            "SELECT action, count(*) FROM acted GROUP BY 1 ORDER BY 1"
        ).fetchall():
            actions[name] = actions.get(name, 0) + count
        joined, before, delays = _joined(stage)
        early += before
        label += " OR rowid IN (SELECT row_at FROM matched)"
        (positives,) = stage.one(f"SELECT count(*) FILTER ({label}) FROM shown")
    width = max((last - first + 1) / PARTS, 1)
    stage.connection.execute(
        f"CREATE TEMP VIEW parted AS SELECT *, least(floor((ts - {first}) / {width})::INT,"
        f" {PARTS - 1}) AS part, ({label}) AS positive FROM shown"
    )
    users, new_users = _new(stage, "user_id")
    items, new_items = _new(stage, "item_id")
    counts = {
        part: (n, c)
        for part, n, c in stage.connection.execute(
            "SELECT part, count(*), count(*) FILTER (positive) FROM parted GROUP BY 1"
        ).fetchall()
    }
    parts = [
        PartOfLog(
            int(first + part * width),
            *counts.get(part, (0, 0)),
            new_users.get(part, 0),
            new_items.get(part, 0),
        )
        for part in range(PARTS)
    ]
    same = "request, user_id, item_id" if log.events.request else "ts, user_id, item_id"
    (different,) = stage.one(f"SELECT count(DISTINCT hash({same})) FROM shown")
    return LogCheck(
        name=log.name,
        rows=stage.unreadable.rows,
        unreadable=stage.unreadable.reasons,
        first_unreadable=[str(row) for row in stage.unreadable.first],
        impressions=shown,
        users=users,
        items=items,
        actions=actions,
        positives=positives,
        first_ms=first,
        last_ms=last,
        duplicates=shown - different,
        joined=joined,
        unlisted=unlisted,
        early=early,
        delay_ms=delays,
        parts=parts,
        leaks=[*suspects(log), *_telling(stage)],
        sampled=log.negatives is not None,
    )


def _new(stage: Stage, column: str) -> tuple[int, dict[int, int]]:
    """How many different ids there are, and rows by tenth of ids whose first tenth it is."""
    found = stage.connection.execute(
        "SELECT part, sum(n)::BIGINT, count(*) FROM (SELECT min(part) AS part,"
        f" arg_min(n, part) AS n FROM (SELECT {column}, part, count(*) AS n FROM parted"
        f" GROUP BY ALL) GROUP BY {column}) GROUP BY part"
    ).fetchall()
    return sum(ids for _, _, ids in found), {part: rows for part, rows, _ in found}


def _joined(stage: Stage) -> tuple[float, int, list[int]]:
    """Of actions in files of their own: the share in time, how many are early, delays.

    Early is what comes before the impression of its request; delays are quantiles of the others.
    """
    keyed = stage.log.feedback is not None and stage.log.feedback.request is not None
    keyed = keyed and stage.log.events.request is not None
    on = "a.user_id = s.user_id AND a.item_id = s.item_id"
    # without a request it is the last time that the item was shown before
    how, on = (
        ("LEFT", f"a.request = s.request AND {on}")
        if keyed
        else ("ASOF LEFT", f"{on} AND a.ts >= s.ts")
    )
    sql = (
        "SELECT a.action, a.ts - s.ts AS late, s.row_at FROM acted a"
        f" {how} JOIN (SELECT *, rowid AS row_at FROM shown) s ON {on}"
    )
    window = stage.log.attribution_ms
    row = stage.connection.execute(
        f"SELECT count(*), count(*) FILTER (late BETWEEN 0 AND {window}),"
        " count(*) FILTER (late < 0),"
        f" quantile_cont(late, [.5, .9, .99]) FILTER (late >= 0) FROM ({sql})"
    ).fetchone()
    count, good, before, delays = row or (0, 0, 0, None)
    positive = [literal(name) for name, rule in stage.log.kinds.items() if rule.label == 1]
    if positive:
        stage.connection.execute(
            f"INSERT INTO matched SELECT DISTINCT row_at FROM ({sql}) WHERE late BETWEEN 0 AND"
            f" {window} AND action IN ({', '.join(positive)})"
        )
    return (good / count if count else 0.0), before, [int(delay) for delay in delays or ()]


def _telling(stage: Stage) -> list[str]:
    """Context fields that alone tell the outcome nearly for sure."""
    found = []
    for name in stage.contexts:
        rows = stage.connection.execute(
            "SELECT count(*), count(*) FILTER (positive) FROM (SELECT positive,"
            f" json_extract_string(context, '$.\"{name}\"') AS value FROM parted"
            f" LIMIT {_SAMPLE}) GROUP BY value"
        ).fetchall()
        auc = _auc_of_rates(np.array(rows, np.float64))
        if auc > _TOO_GOOD_AUC and len(rows) < 0.1 * sum(row[0] for row in rows):
            found.append(f"events.context.{name}: it alone tells the clicks (AUC {auc:.3f})")
    return found


def _auc_of_rates(groups: np.ndarray) -> float:  # type: ignore[type-arg]
    """AUC of ranking rows by the click rate of their group; groups are (rows, clicks).

    >>> _auc_of_rates(np.array([[10.0, 10.0], [10.0, 0.0]]))
    1.0
    """
    order = np.argsort(groups[:, 1] / groups[:, 0])
    clicks = groups[order, 1]
    others = groups[order, 0] - clicks
    if not clicks.sum() or not others.sum():
        return 0.5
    below = np.cumsum(others) - others
    return float((clicks * (below + others / 2)).sum() / (clicks.sum() * others.sum()))
