"""A made-up stream of impressions whose clicks come late, with every true click probability known.

Requests show some items to a user. Who clicks what follows hidden tastes of users for kinds of
items, and a quality of each item that may change; a click is known after a random delay. Counters
are as of each impression, of clicks that were known by then. The records are those of
``training.samples`` in the order of processing, as the trainer gets them.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.declaration import Declaration, Dense, Static, Streaming
from features.samples import Action, Shown, features_type
from inttower.core.batch import FloatArray
from streaming.events import Entity, encode
from trainer.arrived import Arrived

_START_MS = 1_000_000_000_000
_KINDS = 8


@dataclass(frozen=True, slots=True)
class DelayedClicks:
    """What the stream is like.

    Args:
        impressions: how many.
        rate: impressions a second.
        click_rate: mean click probability.
        mean_delay_ms: of a click behind its impression; exponential.
        window_ms: later clicks do not count.
        slate: items of a request.
        users: how many.
        items: how many.
        quality_ms: each item's quality is drawn anew so often; None: never.
        spread: standard deviation of tastes, and of qualities, in log-odds.
        seed: of all draws.
    """

    impressions: int
    rate: float = 10.0
    click_rate: float = 0.1
    mean_delay_ms: float = 100.0
    window_ms: int = 500
    slate: int = 5
    users: int = 300
    items: int = 80
    quality_ms: int | None = None
    spread: float = 0.7
    seed: int = 0

    @property
    def declaration(self) -> Declaration:
        """Counters of users and items, and the items' kind."""
        return Declaration(
            name="delayed_clicks",
            streaming=tuple(
                Streaming(f"{entity}_{source}s", entity, source, "count")
                for entity in ("user", "item")
                for source in ("impression", "click")
            ),
            statics=(Static("kind", "item", "sparse"),),
            dense=(
                Dense("user_logit", "logit_rate", ("user_clicks", "user_impressions")),
                Dense("user_shown", "log_count", ("user_impressions",)),
                Dense("item_logit", "logit_rate", ("item_clicks", "item_impressions")),
                Dense("item_shown", "log_count", ("item_impressions",)),
            ),
            base_rate=self.click_rate,
        )

    def catalogue(self) -> Catalogue:
        """The items' kinds."""
        made = Catalogue(self.declaration)
        for item in range(self.items):
            entity = Entity(id=f"i{item}", attributes={"kind": f"k{item % _KINDS}"})
            made.apply("item", entity.id.encode(), encode(entity))
        return made


@dataclass
class ClickStream:
    """The stream itself.

    Attributes:
        records: in the order of processing.
        at: int64 [n], times of the impressions.
        truth: float32 [n], click probabilities, those of clicks inside the window.
        labels: uint8 [n], clicked inside the window.
    """

    records: list[Arrived] = field(default_factory=list)
    at: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    truth: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    labels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))


def draw(shape: DelayedClicks) -> ClickStream:
    """Draw a stream."""
    rng = np.random.default_rng(shape.seed)
    n = shape.impressions
    requests = np.arange(n) // shape.slate
    gaps = rng.exponential(1000 * shape.slate / shape.rate, requests[-1] + 1)
    at = _START_MS + np.cumsum(gaps).astype(np.int64)[requests]
    user = rng.integers(shape.users, size=requests[-1] + 1)[requests]
    # the items of a request differ
    item = (rng.integers(shape.items, size=requests[-1] + 1)[requests] + np.arange(n)) % shape.items
    epoch = np.zeros(n, np.int64)
    if shape.quality_ms is not None:
        epoch = (at - _START_MS) // shape.quality_ms
    taste = rng.normal(0, shape.spread, (shape.users, _KINDS))
    quality = rng.normal(0, shape.spread, (int(epoch[-1]) + 1, shape.items))
    free = taste[user, item % _KINDS] + quality[epoch, item]
    p = _with_mean(free, shape.click_rate)
    delay = 1 + rng.exponential(shape.mean_delay_ms, n).astype(np.int64)
    labels = (rng.random(n) < p) & (delay <= shape.window_ms)
    inside = 1 - np.exp(-shape.window_ms / shape.mean_delay_ms)
    return ClickStream(
        _records(shape, at, user, item, np.where(labels, at + delay, -1)),
        at,
        (p * inside).astype(np.float32),
        labels.astype(np.uint8),
    )


def _with_mean(free: NDArray[np.float64], rate: float) -> NDArray[np.float64]:
    """Probabilities of these log-odds, moved so that their mean is the rate."""
    low, high = -30.0, 30.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _logistic(free + middle).mean() < rate else (low, middle)
    return _logistic(free + low)


def _logistic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    p: NDArray[np.float64] = 1 / (1 + np.exp(-x))
    return p


def _records(
    shape: DelayedClicks,
    at: NDArray[np.int64],
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    known: NDArray[np.int64],
) -> list[Arrived]:
    make = features_type(shape.declaration)
    counts: Counter[str] = Counter()
    waiting: list[tuple[int, int]] = []
    records: list[Arrived] = []
    shown_before: list[Shown] = []

    def act(before: int) -> None:
        while waiting and waiting[0][0] + 1 <= before:
            when, number = heapq.heappop(waiting)
            counts[f"u{user[number]}"] += 1
            counts[f"i{item[number]}"] += 1
            records.append(_action(shown_before[number], when))

    for number in range(len(at)):
        now = int(at[number])
        act(now)
        u, i = f"u{user[number]}", f"i{item[number]}"
        values = (counts[f"{u} shown"], counts[u], counts[f"{i} shown"], counts[i])
        shown = Shown(
            shown_at=now,
            request_id=f"r{number // shape.slate:08d}",
            user_id=u,
            item_id=i,
            ts=now,
            features=make(*values),
            impression_at=(0, number),
        )
        records.append(Arrived(0, len(records), b"", shown))
        shown_before.append(shown)
        # the whole request is shown at once: its items do not know of each other
        if number + 1 == len(at) or at[number + 1] != now:
            first = number
            while first > 0 and at[first - 1] == now:
                first -= 1
            for each in range(first, number + 1):
                counts[f"u{user[each]} shown"] += 1
                counts[f"i{item[each]} shown"] += 1
        if known[number] >= 0:
            heapq.heappush(waiting, (int(known[number]), number))
    act(int(at[-1]) + shape.window_ms + 2)
    return records


def _action(shown: Shown, when: int) -> Arrived:
    action = Action(
        action_at=when + 1,
        request_id=shown.request_id,
        user_id=shown.user_id,
        item_id=shown.item_id,
        ts=shown.ts,
        action="click",
        action_ts=when,
        label=1,
        weight=1.0,
        impression_at=shown.impression_at,
        click_at=shown.impression_at,
    )
    return Arrived(*shown.impression_at, b"", action)
