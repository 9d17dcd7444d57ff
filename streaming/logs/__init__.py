"""Event logs: the protocol of a log, and logs that a TOML file declares."""

from __future__ import annotations

from streaming.logs.choose import find_log, log_section
from streaming.logs.demo_data import fetch_ml_100k
from streaming.logs.event_log import Event, EventLog
from streaming.logs.own_log import OwnLog

__all__ = ["Event", "EventLog", "OwnLog", "fetch_ml_100k", "find_log", "log_section"]
