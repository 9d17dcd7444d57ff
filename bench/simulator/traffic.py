"""Records a driven run: rankings, slates and events, for the report and the log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from bench.simulator.draws import Ints


@dataclass(frozen=True, slots=True)
class WorldClock:
    """Maps the world's time to the clock on the wall.

    Attributes:
        start_ms: when the world begins, ms since 1970.
        speed: how many of the world's seconds pass in one.
    """

    start_ms: int
    speed: float

    def wall(self, world_ms: float) -> float:
        """Ms since 1970 at a time of the world."""
        return self.start_ms + world_ms / self.speed

    def world(self, wall_ms: float) -> float:
        """Ms of the world at a time since 1970."""
        return (wall_ms - self.start_ms) * self.speed


@dataclass(frozen=True, slots=True)
class ServedRanking:
    """An answer of the system to one request.

    Attributes:
        row: of the request.
        items: int64 [k], rows of the catalogue, best first.
        scores: of each.
        channel: that ranked; empty: the system gave no answer and the application's own order
            was taken.
        variant: of the experiment, if any.
        version: with its delta.
        cold: the system said that it ranks without a version.
    """

    row: int
    items: Ints
    scores: list[float]
    channel: str
    variant: str | None
    version: str
    cold: bool


@dataclass(frozen=True, slots=True)
class ShownSlate:
    """What was shown for one request.

    Attributes:
        row: of the request.
        shown_at: ms of the world.
        items: int64 [shown], rows of the catalogue by position.
        scores: float or NaN of each.
    """

    row: int
    shown_at: int
    items: Ints
    scores: list[float]


@dataclass(frozen=True, slots=True)
class SentEvent:
    """An event that the system took in.

    Attributes:
        request_id: of the ranking.
        item_id: shown or acted on.
        user_id: whose.
        action: the kind; empty: an impression.
        ts: as the event says, ms since 1970.
        sent_ms: when the system took it, ms since 1970.
    """

    request_id: str
    item_id: str
    user_id: str
    action: str
    ts: int
    sent_ms: int


@dataclass(slots=True)
class DrivenTraffic:
    """Everything that happened in a run.

    Attributes:
        clock: of the run.
        rankings: in order of their answers.
        compared: rankings of the same requests by a second channel.
        slates: what was shown.
        sent: every event that the system took, second arrivals included.
        gave_up: events that it refused, by status and field.
        unanswered: rankings that it did not give.
        behind_s: the longest time that a request began too late: above a second, the simulator or
            the system could not keep up.
        seconds: that it took.
        posted: events by kind.
    """

    clock: WorldClock
    rankings: list[ServedRanking] = field(default_factory=list)
    compared: list[ServedRanking] = field(default_factory=list)
    slates: list[ShownSlate] = field(default_factory=list)
    sent: list[SentEvent] = field(default_factory=list)
    gave_up: Counter[str] = field(default_factory=Counter)
    unanswered: int = 0
    behind_s: float = 0.0
    seconds: float = 0.0
    posted: Counter[str] = field(default_factory=Counter)
