"""What a replay and the benches need of a log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from streaming.events import Click, Entity, Impression

Event = Impression | Click


class EventLog(Protocol):
    """A finite log of impressions and clicks in time order.

    Events are numbered from 0; the order is total and the same at every reading (ties in time have
    a fixed order, and a click never comes before its impression), so that a number is a position to
    resume at.
    """

    name: str
    """What the log is called, such as ``ml-1m``."""

    declaration: str
    """The feature declaration that fits this log (``log.name`` of the settings)."""

    attribution_ms: int
    """How long after its impression a click of this log counts."""

    @property
    def positives(self) -> frozenset[str]:
        """The kinds of action that make an impression a positive."""
        ...

    @property
    def sampling_rate(self) -> float:
        """Share of what was not clicked that the log holds: 1, or less where it is sampled.

        A rate p that a model learnt on such a log stands for p / (p + (1 - p) / sampling_rate).
        """
        ...

    @property
    def count(self) -> int:
        """Events in the log."""
        ...

    @property
    def span(self) -> tuple[int, int]:
        """Event times of the first and the last event, in milliseconds."""
        ...

    def items(self) -> Iterator[Entity]:
        """The catalogue."""
        ...

    def users(self) -> Iterator[Entity]:
        """The profiles."""
        ...

    def events(self, start: int = 0, stop: int | None = None) -> Iterator[Event]:
        """The events numbered ``start`` up to, not including, ``stop``."""
        ...

    def index_at(self, ts: int) -> int:
        """Number of the first event at or after this time; ``count`` if there is none."""
        ...
