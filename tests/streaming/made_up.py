"""A log that is made up, and what a replay of it must leave in the topics."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from settings.settings import Settings
from streaming.events import Click, Entity, Impression, TimeMark, decode_event
from streaming.kafka import topics
from streaming.kafka.client import partition_for
from streaming.kafka.span import read_span, span
from streaming.logs import Event
from tests.streaming.event_rows import EventRows

START_S = 900_000_000
Records = dict[tuple[str, int], list[Event | TimeMark]]


def made_up_log(
    ratings: int, *, users: int = 40, seed: int = 0, name: str = "made-up", pace: int = 1
) -> EventRows:
    """A MovieLens-like log: each user rates a film at most once, many at the same second.

    Three ratings come in ``pace`` seconds.
    """
    random = np.random.default_rng(0)
    films = -(-ratings // users) * 2
    pairs = random.choice(users * films, size=ratings, replace=False)
    table = np.column_stack(
        [
            pairs // films + 1,
            pairs % films + 1,
            random.choice([1, 2, 4, 5], size=ratings),
            START_S + pace * np.sort(random.integers(0, ratings // 3 + 1, size=ratings)),
        ]
    )
    items = [Entity(id=str(i + 1), attributes={"genres": ["Drama"]}) for i in range(films)]
    people = [Entity(id=str(i + 1), attributes={"gender": "F"}) for i in range(users)]
    events: list[Event] = []
    for user, item, rating, seconds in sorted(table.tolist(), key=lambda row: (row[3], *row[:2])):
        ids = {"user_id": str(user), "item_id": str(item), "ts": seconds * 1000}
        request = f"{user}-{seconds}-{item}"
        events.append(Impression(request_id=request, **ids))
        if rating > 3:
            events.append(Click(event_id=request, request_id=request, **ids))
    return EventRows(name, events, items, people)


def read_events(settings: Settings) -> Records:
    """Everything in impressions and clicks, by topic (without prefix) and partition, in order."""
    found: Records = defaultdict(list)
    kinds: dict[str, type[Any]] = {topics.IMPRESSIONS: Impression, topics.CLICKS: Click}
    for name, kind in kinds.items():
        for record in read_span(settings, *span(settings, [name])):
            event = decode_event(kind, record.value, record_ms=record.timestamp, max_ahead_ms=0)
            found[name, record.partition].append(event)
    return found


def events_of(records: Records) -> dict[tuple[str, int], list[Event]]:
    """Without the marks."""
    return {
        key: [event for event in sequence if not isinstance(event, TimeMark)]
        for key, sequence in records.items()
    }


def expected(settings: Settings, events: list[Event]) -> dict[tuple[str, int], list[Event]]:
    """What belongs where: each partition has its users' events in the log's order."""
    wanted: dict[tuple[str, int], list[Event]] = {
        (name, partition): []
        for name in (topics.IMPRESSIONS, topics.CLICKS)
        for partition in range(settings.kafka.partitions)
    }
    for event in events:
        name = topics.IMPRESSIONS if isinstance(event, Impression) else topics.CLICKS
        partition = partition_for(event.user_id.encode(), settings.kafka.partitions)
        wanted[name, partition].append(event)
    return wanted


def assert_marks_are_true(records: Records) -> None:
    """Nothing older than a mark follows it in its partition."""
    for sequence in records.values():
        newest = 0
        for event in sequence:
            if isinstance(event, TimeMark):
                newest = max(newest, event.time_mark)
            else:
                assert event.ts >= newest
