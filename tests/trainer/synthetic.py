"""A small made-up log, as the job would write it to ``training.samples``."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

START_MS = 1_000_000_000_000
WINDOW_MS = 500


@dataclass
class _User:
    id: str
    impressions: int = 0
    clicks: int = 0
    expected: float = 0.0
    first_ts: int = 0
    last_ts: int = 0
    liked: dict[int, str] = field(default_factory=dict)
    last_click_ts: int = 0


@dataclass
class _Item:
    id: str
    impressions: int = 0
    clicks: int = 0
    first_ts: int = 0
    last_ts: int = 0


def samples(
    count: int, *, users: int = 40, items: int = 60, seed: int = 0
) -> list[tuple[bytes, bytes | None]]:
    """``count`` impressions, each with its click or without one; who likes what follows a rule."""
    rng = random.Random(seed)
    known_users = [_User(f"u{u}") for u in range(users)]
    known_items = [_Item(f"i{i}") for i in range(items)]
    made: list[tuple[bytes, bytes | None]] = []
    ts = START_MS
    for n in range(count):
        ts += rng.choice((0, 0, 1000, 2000))
        u, i = rng.randrange(users), int(items * rng.random() ** 2)
        user, item = known_users[u], known_items[i]
        likes = (u % 4 == i % 4) or rng.random() < 0.3
        label = int(likes and rng.random() < 0.95)
        shown = _shown(n, ts, user, item)
        made.append((shown, action(shown, ts) if label else None))
        user.expected += (item.clicks + 3.9) / (item.impressions + 5)
        for one in (user, item):
            one.impressions += 1
            one.clicks += label
            one.first_ts = one.first_ts or ts
            one.last_ts = ts
        if label:
            user.last_click_ts = ts
            user.liked[i % 16] = f"{ts:013d}i{i}"
    return made


def _shown(n: int, ts: int, user: _User, item: _Item) -> bytes:
    return msgspec.json.encode(
        {
            "shown_at": ts,
            "request_id": f"r{n:06d}",
            "user_id": user.id,
            "item_id": item.id,
            "ts": ts,
            "features": {
                "user_impressions": user.impressions,
                "user_clicks": user.clicks,
                "user_expected": user.expected,
                "user_first_ts": user.first_ts,
                "user_last_ts": user.last_ts,
                "user_liked": [user.liked.get(slot) for slot in range(16)],
                "user_last_click_ts": user.last_click_ts,
                "user_sitting_impressions": min(user.impressions, 20),
                "user_sitting_clicks": min(user.clicks, 20),
                "item_impressions": item.impressions,
                "item_clicks": item.clicks,
                "item_first_ts": item.first_ts,
                "item_last_ts": item.last_ts,
            },
            "impression_at": [0, n],
        }
    )


def action(shown: bytes, known_ts: int, **changes: Any) -> bytes:
    """A click on an impression that was known at this time."""
    of = msgspec.json.decode(shown)
    record = {
        "action_at": known_ts + 1,
        "request_id": of["request_id"],
        "user_id": of["user_id"],
        "item_id": of["item_id"],
        "ts": of["ts"],
        "action": "click",
        "action_ts": known_ts,
        "label": 1,
        "weight": 1.0,
        "impression_at": of["impression_at"],
        "click_at": of["impression_at"],
    }
    return msgspec.json.encode({**record, **changes})


def catalogue(items: int = 60, users: int = 40) -> Iterator[tuple[str, str, bytes]]:
    """(topic, key, value) of every user and item; two items that are never shown among them."""
    for i in range(items + 2):
        attributes = {"genres": [f"g{i % 4}", f"g{i % 3}"], "decade": str(1960 + 10 * (i % 5))}
        yield "items", f"i{i}", msgspec.json.encode({"id": f"i{i}", "attributes": attributes})
    for u in range(users):
        attributes = {"gender": "FM"[u % 2], "age": str(u % 5), "occupation": str(u % 7)}
        yield "users", f"u{u}", msgspec.json.encode({"id": f"u{u}", "attributes": attributes})


class _Times(msgspec.Struct):
    shown_at: int = -1
    action_at: int = -1


def at(value: bytes) -> int:
    """When a record takes effect."""
    times = msgspec.json.decode(value, type=_Times)
    return max(times.shown_at, times.action_at)


def records(made: list[tuple[bytes, bytes | None]]) -> list[bytes]:
    """Impressions and clicks of :func:`samples` as one list."""
    return [value for pair in made for value in pair if value is not None]


def mark(watermark: int) -> bytes:
    """A mark as the job writes it."""
    return b'{"watermark":%d}' % watermark


def partition_log(
    values: list[bytes], *, every: int, seed: int = 0, end: bool = True
) -> list[bytes]:
    """Records with true marks among them, the records between two marks in any order."""
    rng = random.Random(seed)
    ordered = sorted(values, key=at)
    log: list[bytes] = []
    for start in range(0, len(ordered), every):
        part = ordered[start : start + every]
        rest = ordered[start + every :]
        rng.shuffle(part)
        log += part
        if rest:
            log.append(mark(at(rest[0]) - 1))
    if end:
        log.append(mark(START_MS * 2))
    return log
