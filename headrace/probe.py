"""How long until the server knows of a click: measured from outside, over HTTP."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field

import numpy as np

from headrace.client import Client
from headrace.settings import Settings
from streaming.events import Click

_POLL_S = 0.01
_GIVE_UP_S = 20.0


@dataclass
class _Followed:
    click: Click
    produced: float
    missing: set[str] = field(default_factory=lambda: {"feature", "vector"})


class FreshnessProbe:
    """Follows clicks from their production until the server holds what came of them.

    ``feature``: the user's feature row is readable with the click in it. ``vector``: the user's row
    and the item's vector, learnt from the click, are applied.

    Args:
        settings: where the server is.
        channel: whose rows are looked at.
    """

    def __init__(self, settings: Settings, channel: str = "champion") -> None:
        self.lost = 0
        self._client = Client(settings)
        self._channel = channel
        self._incoming: queue.SimpleQueue[_Followed] = queue.SimpleQueue()
        self._seconds: dict[str, list[float]] = {"feature": [], "vector": []}
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
                "lost": self.lost,
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
            self.lost += len(late)
            waiting = [o for o in waiting if o.missing and o not in late]
            time.sleep(_POLL_S)

    def _look(self, one: _Followed) -> None:
        user = self._client.get(f"/v1/users/{one.click.user_id}?channel={self._channel}")
        if "feature" in one.missing and (user["features_ts"] or 0) > one.click.ts:
            self._done(one, "feature")
        if "vector" in one.missing and (user["row_ts"] or 0) >= one.click.ts:
            item = self._client.get(f"/v1/items/{one.click.item_id}?channel={self._channel}")
            if (item["vector_ts"] or 0) >= one.click.ts:
                self._done(one, "vector")

    def _done(self, one: _Followed, what: str) -> None:
        one.missing.discard(what)
        self._seconds[what].append(time.monotonic() - one.produced)
