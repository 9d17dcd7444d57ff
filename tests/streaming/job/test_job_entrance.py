"""The job's entrance against the Python decoder: the same records pass, the same reasons come.

The SQL is written twice over, once for records as we encode them and once for all others, and
neither is the decoder: so every odd record here goes through a real job.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from features.samples import Action, Shown
from settings.errors import EventError
from settings.settings import Settings
from streaming.events import Click, Impression, TimeMark, decode_event, encode
from streaming.kafka import topics
from streaming.kafka.client import create_topics, producer
from tests.streaming.job_process import JobProcess, dead_letters, samples

T = 978_300_760_000
SETTINGS = Settings().with_changes(log={"actions": {"click": {"label": 1}, "open": {"label": 1}}})
Fields = dict[str, Any]
KINDS: dict[str, type[Any]] = {topics.IMPRESSIONS: Impression, topics.CLICKS: Click}
# reasons that the stages behind the entrance give
BEHIND = {"duplicate", "unmatched", "repeated"}

FULL: Fields = {
    "position": 3,
    "score": -1.25e-7,
    "variant": "champion",
    "version": "000001",
    "propensity": 0.5,
}
# what an application may change in the fields
CHANGES: list[Fields] = [
    {},
    FULL,
    {**FULL, "context": {"ts": 1, "page": "a"}},
    {"score": 7, "variant": ""},
    {"position": -2, "score": 1e16, "version": "score"},
    {"position": None, "variant": None},
    {"user_id": 'quo"ts":111111111111,"ted', "variant": "back\\slash"},
    {"item_id": "{", "user_id": "}"},
    {"item_id": "a,b:c", "variant": "x}", "user_id": "null"},
    {"item_id": "é", "user_id": "用户"},
    {"user_id": "u" * 64},
    {"user_id": "u" * 65},
    {"user_id": "u" * 256},
    {"user_id": "u" * 257},
    {"user_id": "ü" * 129},
    {"user_id": ""},
    {"user_id": None},
    {"user_id": 5},
    {"item_id": ["i"]},
    {"position": "first"},
    {"position": 1.5, "score": True},
    {"score": "high"},
    {"variant": 7},
    {"context": []},
    {"campaign": {"a": [1]}, "more": "fields"},
    {"score": 1e300, "context": {"score": 1e300, "n": 10**18, "x": "Infinity"}},
    {"context": {"list": ["a", "b"], "on": True, "text": 'a,":{}"é', "none": None}},
    {"time_mark": None},
    {"time_mark": T},
    {"action": "open"},
    {"action": "laugh"},
    {"action": ""},
    {"action": 'quo"te'},
    {"position": 2**63 - 1},
    {"position": 2**63},
    {"ts": 2**63},
    {"ts": 10**400},
    {"ts": T - 86_400_000},
    {"ts": T - 86_400_001},
    {"ts": T + 600_000},
    {"ts": T + 600_001},
    {"ts": -1},
    {"ts": 0},
    {"ts": 978_300_760},
    {"ts": 32_472_144_000_000},
    {"ts": str(T)},
    {"ts": T + 0.5},
    {"ts": None},
]
# what may be done to the text of a record
FORMS: list[Callable[[str], str]] = [
    lambda text: text,
    lambda text: text + "\n",
    lambda text: text + "\r\n",
    lambda text: " " + text,
    lambda text: "\n\t" + text.replace(",", " ,\n "),
    lambda text: text[:-1],
    lambda text: text + "}",
    lambda text: text + " {}",
    lambda text: f"[{text}]",
    lambda text: text.replace('"item_id"', '"item\\u005fid"'),
    lambda text: text.replace('"ts":', '"ts" : '),
    lambda text: text.replace('"ts":', '"at":'),
    lambda text: text.replace('"ts":', '"ts":0'),
    lambda text: text[:-1] + ',"value":01,"position":01}',
    lambda text: text[:-1] + ',"value":1E2,"more":-0.0e+7}',
    lambda text: text[:-1] + ',"value":1e400}',
    lambda text: text[:-1] + ',"context":{"a":[1e400]}}',
    lambda text: text[:-1] + ',"context":{"a":1' + "0" * 400 + "}}",
    lambda text: text[:-1] + ',"context":{"a":1e400}',
    lambda text: text[:-1] + ',"more":1e400}',
]
BYTES = [
    b'{"time_mark":5}',
    b'{"time_mark":1e15}',
    b'{"time_mark": 978300760000}',
    b"",
    b"{",
    b"[]",
    b"5",
    b"null",
    b'{"a":1}x',
    b"\xff\xfe",
    b'{"ts":NaN}',
    b"[" * 10_000,
]


@dataclass(frozen=True)
class Record:
    topic: str
    value: bytes


def _fields(kind: type[Any], number: int) -> Fields:
    own = "event_id" if kind is Click else "request_id"
    return {own: f"n{number}", "user_id": f"u{number}", "item_id": "i", "ts": T}


def _records() -> list[Record]:
    made: list[Record] = []
    draw = random.Random(5)
    for topic, kind in KINDS.items():
        for changes in CHANGES:
            fields = {**_fields(kind, len(made)), **changes}
            compact = json.dumps(fields, separators=(",", ":"))
            made.append(Record(topic, compact.encode()))
            turned = dict(reversed({**_fields(kind, len(made)), **changes}.items()))
            made.append(Record(topic, json.dumps(turned, ensure_ascii=False).encode()))
        for form in FORMS:
            for more in ({}, FULL):
                text = json.dumps({**_fields(kind, len(made)), **more}, separators=(",", ":"))
                made.append(Record(topic, form(text).encode()))
        for _ in range(300):
            more = draw.choice([{}, FULL])
            text = json.dumps({**_fields(kind, len(made)), **more}, separators=(",", ":"))
            made.append(Record(topic, _damaged(draw, text).encode()))
        made += [Record(topic, value) for value in BYTES]
    return made


def _damaged(draw: random.Random, text: str) -> str:
    """With a character less, more or another."""
    place = draw.randrange(len(text))
    put: str = draw.choice(["", *'{}[]":,\\ 0x\n\x00é'])
    return f"{text[:place]}{put}{text[place + draw.choice([0, 1]) :]}"


def _outcome(record: Record) -> str | Impression | Click | TimeMark:
    try:
        event: Impression | Click | TimeMark = decode_event(
            KINDS[record.topic],
            record.value,
            record_ms=T,
            max_ahead_ms=SETTINGS.flink.max_ahead_ms,
            max_late_ms=SETTINGS.flink.max_late_ms,
            actions=SETTINGS.log.actions,
        )
    except EventError as error:
        return str(error.reason)
    return event


@pytest.mark.timeout(900)
def test_the_job_refuses_what_the_decoder_refuses_and_reads_what_it_reads(
    cluster: Settings,
) -> None:
    cluster = cluster.with_changes(log={"actions": SETTINGS.log.actions})
    create_topics(cluster)
    records = _records()
    # clicks that only their request id brings to an impression shown before another
    shown = [Impression(request_id=f"r{k}", user_id="u", item_id="i", ts=T) for k in range(2)]
    click = Click(event_id="c", user_id="u", item_id="i", ts=T, request_id="r0", action="open")
    records += [Record(topics.IMPRESSIONS, encode(event)) for event in shown]
    records += [Record(topics.CLICKS, encode(click))]
    writer = producer(cluster)
    sent = [
        writer.send(cluster.topic(r.topic), r.value, key=b"k", partition=0, timestamp_ms=T)
        for r in records
    ]
    places = [(r.topic, f.get(30).offset) for r, f in zip(records, sent, strict=True)]
    over = T + cluster.flink.deadline_ms + 3_600_000
    for behind in range(3):
        end = encode(TimeMark(time_mark=over + behind))
        for topic in KINDS:
            for at in range(cluster.kafka.partitions):
                writer.send(cluster.topic(topic), end, partition=at, timestamp_ms=over + behind)
    writer.flush()
    with JobProcess(cluster) as job:
        sums = job.settled()
    writer.close()
    assert sums.balances

    letters = {
        (letter["topic"], letter["offset"]): letter["reason"]
        for letter in dead_letters(cluster)
        if letter["reason"] not in BEHIND
    }
    found = {s.impression_at[1]: s for s in samples(cluster) if isinstance(s, Shown)}
    acted = {s.click_at[1]: s for s in samples(cluster) if isinstance(s, Action)}
    names = ("request_id", "user_id", "item_id", "ts", "context", *FULL)
    wrong = []
    for record, place in zip(records, places, strict=True):
        wanted = _outcome(record)
        if letters.get(place) != (wanted if isinstance(wanted, str) else None):
            wrong.append((record.value[:300], wanted, letters.get(place)))
        elif isinstance(wanted, Impression):
            sample = found.get(place[1])
            read = {name: getattr(sample, name, "no sample") for name in names}
            if read != {name: getattr(wanted, name) for name in names}:
                wrong.append((record.value[:300], wanted, str(read)))
    assert not wrong, "\n".join(map(str, wrong))
    assert [(a.request_id, a.action) for a in acted.values() if a.user_id == "u"] == [
        ("r0", "open")
    ]
