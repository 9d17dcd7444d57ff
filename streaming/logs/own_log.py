"""A log that a TOML file declares, as an :class:`streaming.logs.EventLog`."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from settings.log_settings import ActionKind
from streaming.events import Entity
from streaming.logs.catalogues import read_catalogue
from streaming.logs.event_log import Event
from streaming.logs.log_file import LogFile
from streaming.logs.sorted_events import SUMMARY, LogSummary, SortedEvents, write_sorted
from streaming.logs.sources import find_files, scratch_folder
from streaming.logs.stage import Stage

log = logging.getLogger(__name__)

# changes when the sorted file does
_FORMAT = 1
_KEPT_DAYS = 30


class OwnLog:
    """The events of declared files, sorted once and kept beside the other fetched files.

    Opening reads and sorts the files, on disk where they do not fit in memory; opening the same
    files again finds them sorted. Memory holds one row group of the sorted file.

    Args:
        declared: the TOML.
        folder: where its relative paths start.
        file: path of the TOML, or the name of a shipped one.

    Raises:
        ConfigurationError: the declaration does not fit the files.
        LogFileError: files are missing or broken, or too many rows are.
    """

    def __init__(self, declared: LogFile, folder: Path, file: str = "") -> None:
        self.declared = declared
        self.folder = folder
        self.file = file
        self.name = declared.name
        self.declaration = declared.name
        self.attribution_ms = declared.attribution_ms
        self._sorted = SortedEvents(_sorted_folder(declared, folder))

    @property
    def summary(self) -> LogSummary:
        """What was counted when the files were read."""
        return self._sorted.summary

    @property
    def count(self) -> int:
        """Impressions and actions."""
        return self.summary.count

    @property
    def span(self) -> tuple[int, int]:
        """When the first and the last event became known, in milliseconds."""
        return self.summary.first_ts, self.summary.last_ts

    @property
    def actions(self) -> Mapping[str, ActionKind]:
        """The kinds of action, as ``log.actions`` of the settings has them."""
        return {
            name: ActionKind(label=None if rule.label == "none" else rule.label, weight=rule.weight)
            for name, rule in self.declared.kinds.items()
        }

    @property
    def positives(self) -> frozenset[str]:
        """The kinds of action that make an impression a positive."""
        return frozenset(name for name, kind in self.actions.items() if kind.label == 1)

    @property
    def wait_ms(self) -> int | None:
        """How long after its impression a sample is learnt; None: the default of the settings."""
        return self.declared.wait_ms

    @property
    def sampling_rate(self) -> float:
        """Share of what was not clicked that the log holds: 1, or less of sampled negatives."""
        return self.summary.sampling_rate

    def items(self) -> Iterator[Entity]:
        """The items' attributes, read at each call.

        Raises:
            LogFileError: a file is missing or broken.
        """
        return read_catalogue(self.declared, self.folder, "items")

    def users(self) -> Iterator[Entity]:
        """The users' attributes, read at each call; see :meth:`items`."""
        return read_catalogue(self.declared, self.folder, "users")

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Event]:
        """The events numbered ``start`` up to, not including, ``stop``."""
        return self._sorted.events(start, self.count if stop is None else stop)

    def arrivals(self, start: int = 0, stop: int | None = None) -> Iterator[int]:
        """When the events numbered ``start`` up to ``stop`` arrived, ms; never falls."""
        return self._sorted.arrivals(start, self.count if stop is None else stop)

    def index_at(self, ts: int) -> int:
        """Number of the first event known at or after this time; ``count`` if there is none."""
        return self._sorted.index_at(ts)


def _sorted_folder(declared: LogFile, folder: Path) -> Path:
    """The folder of the sorted file, made first if these files were not sorted before."""
    root = scratch_folder()
    target = root / f"{declared.name}-{_digest(declared, folder)}"
    if not (target / SUMMARY).exists():
        _forget_old(root)
        with tempfile.TemporaryDirectory(dir=root, prefix="sorting-") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            with Stage(declared, folder) as stage:
                stage.read()
                summary = write_sorted(stage, made)
            if summary.unreadable:
                log.warning("%s: rows were skipped: %s", declared.name, summary.unreadable)
            shutil.rmtree(target, ignore_errors=True)
            made.rename(target)
    os.utime(target)
    return target


def _digest(declared: LogFile, folder: Path) -> str:
    """Changes with the declaration of the events and with each of their files."""
    parts = [
        str(_FORMAT),
        declared.model_dump_json(exclude={"items", "users", "attribution", "wait", "features"}),
    ]
    tables = [("events", declared.events), ("feedback", declared.feedback)]
    for place, table in tables:
        for path in find_files(table, folder, place) if table else ():
            stat = path.stat()
            parts.append(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _forget_old(root: Path) -> None:
    """Delete what was not opened for a month."""
    oldest = time.time() - _KEPT_DAYS * 86_400
    for path in root.iterdir():
        if path.stat().st_mtime < oldest:
            shutil.rmtree(path, ignore_errors=True)
