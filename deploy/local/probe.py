"""Measures freshness from outside, over HTTP: how long until the server knows of a click."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np

from deploy.local.http_client import Client
from settings.settings import Settings
from streaming.events import Click

_POLL_S = 0.01
_GIVE_UP_S = 20.0


@dataclass
class _Followed:
    click: Click
    produced: float
    missing: set[str] = field(default_factory=lambda: {"feature", "vector"})


class FreshnessProbe:
    """Follows clicks from their production until the server has their effects.

    ``feature``: the user's feature row is readable with the click in it. ``vector``: the user's row
    and the item's vector, learnt from the click, are applied.

    Args:
        settings: where the server is.
        channel: its rows are read.
    """

    def __init__(self, settings: Settings, channel: str = "champion") -> None:
        self._client = Client(settings)
        self._channel = channel
        self._incoming: queue.SimpleQueue[_Followed] = queue.SimpleQueue()
        self._seconds: dict[str, list[float]] = {"feature": [], "vector": []}
        self._lost = dict.fromkeys(self._seconds, 0)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> FreshnessProbe:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leaving.set()
        self._thread.join()

    def follow(self, click: Click) -> None:
        """Follow a click that is produced now."""
        self._incoming.put(_Followed(click, time.monotonic()))

    def summary(self) -> dict[str, dict[str, float | int | None]]:
        """Milliseconds by percentile, how many were followed, and how many never arrived."""
        return {
            name: {
                **{
                    f"p{p}": round(1000 * float(np.percentile(seconds, p))) if seconds else None
                    for p in (50, 95, 99)
                },
                "followed": len(seconds),
                "lost": self._lost[name],
            }
            for name, seconds in self._seconds.items()
        }

    def _run(self) -> None:
        waiting: list[_Followed] = []
        while waiting or not (self._leaving.is_set() and self._incoming.empty()):
            while not self._incoming.empty():
                waiting.append(self._incoming.get())
            for one in waiting:
                self._look(one)
            now = time.monotonic()
            late = [o for o in waiting if o.missing and now - o.produced > _GIVE_UP_S]
            for name in (name for one in late for name in one.missing):
                self._lost[name] += 1
            waiting = [o for o in waiting if o.missing and o not in late]
            time.sleep(_POLL_S)

    def _look(self, one: _Followed) -> None:
        user = self._client.get(f"/v1/users/{quote(one.click.user_id)}")
        # events of one millisecond are counted together: a row with the click's time includes it
        if "feature" in one.missing and (user["features"] or {"ts": -1})["ts"] >= one.click.ts:
            self._done(one, "feature")
        # samples are learnt when they close; a clicked one closes a millisecond after its click
        if "vector" in one.missing and self._row_ts(user) > one.click.ts:
            item = self._client.get(f"/v1/items/{quote(one.click.item_id)}")
            if self._row_ts(item) > one.click.ts:
                self._done(one, "vector")

    def _row_ts(self, held: dict[str, Any]) -> int:
        """Closing time (ms) of the newest sample behind a row; -1 if there is none."""
        ts = held["channels"].get(self._channel, {}).get("ts")
        return -1 if ts is None else int(ts)

    def _done(self, one: _Followed, what: str) -> None:
        one.missing.discard(what)
        self._seconds[what].append(time.monotonic() - one.produced)
