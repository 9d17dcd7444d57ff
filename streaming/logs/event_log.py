"""What a replay and the benches need of a log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

from settings.log_settings import ActionKind
from streaming.events import Click, Entity, Impression

Event = Impression | Click


class EventLog(Protocol):
    """A finite log of impressions and clicks, in the order in which they became known.

    Unless the log is one that :class:`TellsArrivals`, each is known at its own time. Events are
    numbered from 0; the order is total and the same at every reading (ties in time have a fixed
    order, and there a click never comes before its impression), so that a number is a position to
    resume at.
    """

    name: str
    """What the log is called, such as ``ml-1m``."""

    declaration: str
    """The log whose features fit this one (``log.name`` of the settings)."""

    attribution_ms: int
    """How long after its impression a click of this log counts."""

    @property
    def actions(self) -> Mapping[str, ActionKind]:
        """The kinds of action, as ``log.actions`` of the settings has them."""
        ...

    @property
    def positives(self) -> frozenset[str]:
        """The kinds of action that make an impression a positive."""
        ...

    @property
    def wait_ms(self) -> int | None:
        """How long after its impression a sample is learnt; None: the default of the settings."""
        ...

    @property
    def sampling_rate(self) -> float:
        """Share of what was not clicked that the log holds: 1, or less where it is sampled.

        A rate p that a model learnt on such a log means p / (p + (1 - p) / sampling_rate).
        """
        ...

    @property
    def count(self) -> int:
        """Events in the log."""
        ...

    @property
    def span(self) -> tuple[int, int]:
        """When the first and the last event became known, in milliseconds."""
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
        """Number of the first event known at or after this time; ``count`` if there is none."""
        ...


@runtime_checkable
class TellsArrivals(Protocol):
    """A log that knows when each event arrived, which may be later than its own time."""

    def arrivals(self, start: int = 0, stop: int | None = None) -> Iterator[int]:
        """When the events numbered ``start`` up to ``stop`` arrived, ms; never falls."""
        ...


def known_events(
    log: EventLog, start: int = 0, stop: int | None = None
) -> Iterator[tuple[Event, int]]:
    """The events with the time (ms) at which each became known."""
    if isinstance(log, TellsArrivals):
        return zip(log.events(start, stop), log.arrivals(start, stop), strict=True)
    return ((event, event.ts) for event in log.events(start, stop))
