"""Logs of a few rows, declared as a user would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streaming.events import Impression
from streaming.logs import EventLog, OwnLog
from streaming.logs.parse_log_file import parse_log_file

T = 1_494_137_644
ROWS = f"user,item,rating,time\nu1,i1,5,{T}\nu2,i1,1,{T + 1}\nu1,i2,4,{T + 2}\n"


def declare(folder: Path, content: str | bytes = ROWS, **changes: Any) -> OwnLog:
    """A log of one CSV; ``changes`` are of [events], or of the whole where the key is ``log``."""
    path = folder / changes.pop("file", "rows.csv")
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    whole = changes.pop("log", {})
    events = {
        "files": path.name,
        "user": "user",
        "item": "item",
        "time": {"column": "time", "unit": "s"},
        "click": "rating > 3",
        **changes,
    }
    events = {key: value for key, value in events.items() if value is not None}
    return OwnLog(
        parse_log_file({"name": "small", "events": events, **whole}, "small.toml"), folder
    )


def outcomes(log: EventLog) -> list[tuple[str, str, int, bool]]:
    """User, item, seconds after T and whether it was clicked, of each impression."""
    events = list(log.events())
    clicked = {(e.request_id, e.item_id) for e in events if not isinstance(e, Impression)}
    return [
        (e.user_id, e.item_id, e.ts // 1000 - T, (e.request_id, e.item_id) in clicked)
        for e in events
        if isinstance(e, Impression)
    ]


SOUND = [("u1", "i1", 0, True), ("u2", "i1", 1, False), ("u1", "i2", 2, True)]
