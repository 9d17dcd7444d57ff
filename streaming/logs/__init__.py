"""Readers of event logs: what a replay needs to know of a log, and the logs that there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from settings.errors import ConfigurationError
from streaming.logs.ali import AliDisplayAds, Behaviours, behaviours
from streaming.logs.amazon import AmazonElectronics
from streaming.logs.demo_data import fetch_ml_100k
from streaming.logs.event_log import Event, EventLog
from streaming.logs.movielens import MovieLens

__all__ = [
    "READERS",
    "AliDisplayAds",
    "AmazonElectronics",
    "Behaviours",
    "Event",
    "EventLog",
    "MovieLens",
    "behaviours",
    "fetch_ml_100k",
    "open_log",
]

READERS: dict[str, Callable[[Path], EventLog]] = {
    "ml-100k": MovieLens.ml_100k,
    "ml-1m": MovieLens.ml_1m,
    AmazonElectronics.name: AmazonElectronics,
    AliDisplayAds.name: AliDisplayAds,
}


def open_log(name: str, path: Path) -> EventLog:
    """The log of this name, read from its folder.

    Raises:
        ConfigurationError: there is no reader of this name.
        LogFileError: a file is missing or broken.
    """
    if name not in READERS:
        raise ConfigurationError(f"no reader for the log {name!r}: choose {', '.join(READERS)}")
    return READERS[name](path)
