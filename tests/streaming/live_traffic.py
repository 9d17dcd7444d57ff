"""Made-up traffic of a live system, with everything that goes wrong in one."""

from __future__ import annotations

import random

import msgspec

from settings.settings import Settings
from streaming.events import Click, Impression, encode
from streaming.kafka import topics
from streaming.kafka.client import admin, consumer, end_offsets, partition_for
from streaming.kafka.time_marks import EVENT_TOPICS, Marker
from streaming.kafka.writer import Writer
from tests.streaming.expected_job import Arrived

START = 1_700_000_000_000
MINUTE, HOUR = 60_000, 3_600_000
SPAN = 40 * MINUTE
OUTAGE = (START + 15 * MINUTE, START + 20 * MINUTE)
MARK_MS = 5_000
Sent = tuple[int, str, str, bytes]


def live_settings(settings: Settings) -> Settings:
    """Four kinds of action, half an hour for each to come, and three hours to arrive."""
    return settings.with_changes(
        log={
            "attribution_ms": 30 * MINUTE,
            "actions": {
                "click": {"label": 1},
                "buy": {"label": 1, "weight": 3.5},
                "hide": {"label": 0, "weight": 2.0},
                "open": {},
            },
        },
        flink={"max_late_ms": 3 * HOUR, "max_ahead_ms": 10 * MINUTE},
    )


def traffic(shown: int, seed: int) -> list[Sent]:
    """Records (record timestamp, topic, user, value) in order of arrival."""
    draw = random.Random(seed)
    sent: list[Sent] = []

    def arrives(topic: str, event: Impression | Click) -> None:
        known = event.ts + draw.randrange(150)
        chance = draw.random()
        if chance < 0.1:
            known = event.ts + int(1_000 * 600 ** draw.random())
        elif chance < 0.12:
            known = event.ts + draw.randrange(4 * HOUR)  # some too late
        elif chance < 0.14:
            known = event.ts - draw.randrange(5 * MINUTE)  # a clock that is ahead
        if OUTAGE[0] <= known < OUTAGE[1]:
            known = OUTAGE[1]
        for _ in range(2 if draw.random() < 0.04 else 1):
            sent.append((known, topic, event.user_id, encode(event)))
            known += draw.choice([0, 3, 40 * MINUTE])

    for number in range(shown):
        ts = START + draw.randrange(SPAN)
        impression = Impression(
            request_id=f"r{number}",
            user_id=draw.choice(["用户", *map(str, range(25))]),
            item_id=f"i{draw.randrange(20)}",
            ts=ts,
            position=draw.choice([None, 3]),
            score=draw.choice([None, 0.25]),
            variant=draw.choice([None, "b"]),
            context=draw.choice([None, None, {"hour": 7, "page": "hôme", "tags": ["a", "b"]}]),
        )
        arrives(topics.IMPRESSIONS, impression)
        while draw.random() < 0.4:
            click = Click(
                event_id=f"e{len(sent)}",
                user_id=impression.user_id,
                item_id=impression.item_id if draw.random() < 0.9 else "never shown",
                ts=ts + draw.choice([0, 1, 900, 20_000, 12 * MINUTE, 30 * MINUTE, 31 * MINUTE]),
                request_id=draw.choice([None, impression.request_id]),
                action=draw.choice([None, "click", "buy", "hide", "open", "laugh"]),
                value=draw.choice([None, 1.5, 1e-7]),
            )
            arrives(topics.CLICKS, click)
    day_ahead = Click(event_id="x", user_id="1", item_id="i1", ts=START + 20 * HOUR)
    sent.append((START, topics.CLICKS, "1", encode(day_ahead)))
    for topic in EVENT_TOPICS:
        broken = (b"{", b'{"time_mark":null}', b'{"score":1e400}')
        sent += [(START + 9, topic, "1", value) for value in broken]
    poisoned = {**msgspec.to_builtins(impression), "request_id": "p"}
    text = msgspec.json.encode(poisoned)[:-1] + b',"propensity":1e400}'
    sent.append((START + MINUTE, topics.IMPRESSIONS, "1", text))
    return sorted(sent, key=lambda s: s[0])


def send(settings: Settings, sent: list[Sent]) -> None:
    """Write records with marks among them."""
    with Writer(settings, bulk=True) as writer:
        marker = Marker(settings, writer)
        due = sent[0][0]
        for known, topic, user, value in sent:
            while due <= known:
                marker.mark(due)
                due += MARK_MS
            partition = partition_for(user.encode(), settings.kafka.partitions)
            writer.send(settings.topic(topic), partition, None, value, timestamp_ms=known)


def mark_the_end(settings: Settings, sent: list[Sent]) -> None:
    """Write marks behind the last deadline; the job tells its watermark at the next ones."""
    with Writer(settings, bulk=False) as writer:
        Marker(settings, writer).mark(sent[-1][0] + settings.flink.deadline_ms + HOUR)


def arrived(settings: Settings) -> list[Arrived]:
    """Every record of impressions and clicks."""
    found: list[Arrived] = []
    for topic in EVENT_TOPICS:
        name = settings.topic(topic)
        with admin(settings) as client:
            ends = end_offsets(client, name)
        reader = consumer(settings, {(name, p): 0 for p in ends})
        while any(reader.position(at) < ends[at.partition] for at in reader.assignment()):
            for records in reader.poll(timeout_ms=500).values():
                found += [
                    Arrived(topic, (r.partition, r.offset), r.timestamp, r.value) for r in records
                ]
        reader.close()
    return found
