"""A log of events in memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from settings.log_settings import ActionKind, LogSettings
from streaming.events import Entity
from streaming.logs import Event


class EventRows:
    """Events that a test wrote down; see :class:`streaming.logs.EventLog`."""

    declaration = "movielens"
    attribution_ms = 500
    sampling_rate = 1.0
    actions: ClassVar[Mapping[str, ActionKind]] = LogSettings().actions
    positives = frozenset({"click"})
    wait_ms = None

    def __init__(
        self,
        name: str,
        events: Sequence[Event],
        items: Sequence[Entity] = (),
        users: Sequence[Entity] = (),
    ) -> None:
        self.name = name
        self._events = events
        self._items = items
        self._users = users

    @property
    def count(self) -> int:
        return len(self._events)

    @property
    def span(self) -> tuple[int, int]:
        return self._events[0].ts, self._events[-1].ts

    def items(self) -> Iterator[Entity]:
        return iter(self._items)

    def users(self) -> Iterator[Entity]:
        return iter(self._users)

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Event]:
        return iter(self._events[start:stop])

    def index_at(self, ts: int) -> int:
        return bisect_left(self._events, ts, key=lambda event: event.ts)
