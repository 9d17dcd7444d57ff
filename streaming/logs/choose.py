"""Which log a command means."""

from __future__ import annotations

from pathlib import Path

from settings.errors import ConfigurationError
from streaming.kafka.java import cache_folder
from streaming.logs import EventLog, fetch_ml_100k, open_log

FETCHED = "ml-100k"


def find_log(name: str, path: Path | None) -> EventLog:
    """The log of this name; ML-100K is fetched when no folder is given.

    Raises:
        ConfigurationError: the log is not one that can be fetched, and there is no folder.
        LogFileError: its files are missing or broken.
    """
    if path is None:
        if name != FETCHED:
            raise ConfigurationError(
                f"the log {name} is not fetched: download it and give its folder with --path"
            )
        path = fetch_ml_100k(cache_folder() / FETCHED)
    return open_log(name, path)
