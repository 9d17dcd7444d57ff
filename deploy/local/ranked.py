"""Replays a stretch of a log in which the server ranks each impression before its outcome."""

from __future__ import annotations

import random
import time

import msgspec
from sklearn.metrics import roc_auc_score

from deploy.local.loop import Loop
from deploy.local.probe import FreshnessProbe
from streaming.events import Click, Impression
from streaming.logs import Event

SAMPLED_CANDIDATES = 100
# one of so many clicks is followed until the server has its effects
_PROBE_EVERY = 20


class RankedStretch:
    """Ranks impressions before they are produced; :meth:`serve` is a replay's ``transform``.

    Every impression is ranked several times among the same candidates: once by the variant of its
    user, which is logged and produced, and by the other channels without being logged, so that
    channels can be compared on the same impressions.

    Args:
        loop: the running parts.
        probe: follows some of the clicks.
    """

    def __init__(self, loop: Loop, probe: FreshnessProbe) -> None:
        self.rank_ms: list[float] = []
        self._client = loop.client
        self._channels = loop.settings.serving.channels
        self._items = [item.id for item in loop.log.items()]
        self._probe = probe
        self._random = random.Random(0)  # noqa: S311 - sampling, not security
        self._scores: dict[str, dict[tuple[str, str], float]] = {c: {} for c in self._channels}
        self._clicked: set[tuple[str, str]] = set()
        self._clicks = 0

    def serve(self, event: Event) -> Event:
        """Rank an impression and return it as served; return a click, and follow some of them."""
        if isinstance(event, Click):
            if event.request_id is not None:
                self._clicked.add((event.request_id, event.item_id))
            self._clicks += 1
            if self._clicks % _PROBE_EVERY == 0:
                self._probe.follow(event)
            return event
        return self._ranked(event)

    def _ranked(self, shown: Impression) -> Impression:
        candidates = self._random.sample(self._items, SAMPLED_CANDIDATES)
        if shown.item_id not in candidates:
            candidates[0] = shown.item_id
        asked = time.perf_counter()
        answer = self._client.rank(
            shown.user_id,
            candidates,
            k=len(candidates),
            ts=shown.ts,
            request_id=shown.request_id,
        )
        self.rank_ms.append((time.perf_counter() - asked) * 1000)
        key = (shown.request_id, shown.item_id)
        for channel in self._channels:
            if channel == answer["model"]:
                scored = answer
            else:
                scored = self._client.rank(
                    shown.user_id, [shown.item_id], k=1, ts=shown.ts, channel=channel
                )
            self._scores[channel][key] = _score_of(scored, shown.item_id)[0]
        score, position = _score_of(answer, shown.item_id)
        return msgspec.structs.replace(
            shown,
            experiment=answer["experiment"],
            variant=answer["variant"],
            model=answer["model"],
            version=answer["version"],
            score=score,
            position=position,
        )

    def auc(self) -> dict[str, float | None]:
        """AUC of each channel over all impressions of the stretch."""
        found: dict[str, float | None] = {}
        for channel, scores in self._scores.items():
            labels = [key in self._clicked for key in scores]
            two_classes = 0 < sum(labels) < len(labels)
            found[channel] = (
                float(roc_auc_score(labels, list(scores.values()))) if two_classes else None
            )
        return found


def _score_of(answer: dict[str, list[dict[str, float | str]]], item_id: str) -> tuple[float, int]:
    for position, item in enumerate(answer["items"]):
        if item["item_id"] == item_id:
            return float(item["score"]), position
    raise AssertionError(f"the server left out the candidate {item_id}")
