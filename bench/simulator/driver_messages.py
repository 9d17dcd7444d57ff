"""Parses the server's answers for the driver, and builds the bodies that it posts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from bench.simulator.draws import Ints
from bench.simulator.traffic import SentEvent, ServedRanking


def served_ranking(row: int, answer: dict[str, Any]) -> ServedRanking:
    """The answer to the request of a row."""
    items = answer["items"]
    return ServedRanking(
        row=row,
        items=np.array([int(item["item_id"][1:]) for item in items], np.int64),
        scores=[float(item["score"]) for item in items],
        channel=str(answer["model"]),
        variant=answer["variant"],
        version=f"{answer['version']}+{answer['delta']}",
        cold=bool(answer["cold"]),
    )


def own_order(row: int, candidates: Ints) -> ServedRanking:
    """What the application shows when the system does not answer."""
    return ServedRanking(row, candidates, [float("nan")] * len(candidates), "", None, "", True)


def filled(ranking: ServedRanking, candidates: Ints, count: int) -> ServedRanking:
    """An answer with fewer items than asked for, filled up with the other candidates."""
    missing = count - len(ranking.items)
    if missing <= 0:
        return ranking
    others = candidates[~np.isin(candidates, ranking.items)][:missing]
    return ServedRanking(
        ranking.row,
        np.r_[ranking.items, others],
        ranking.scores + [float("nan")] * len(others),
        ranking.channel,
        ranking.variant,
        ranking.version,
        ranking.cold,
    )


def impression_body(event: SentEvent, position: int, context: dict[str, str]) -> dict[str, Any]:
    """An impression as it is posted."""
    return {
        "request_id": event.request_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "ts": event.ts,
        "position": position,
        "context": context,
    }


def action_body(event: SentEvent, value: float) -> dict[str, Any]:
    """An action as it is posted; a value that is NaN is left out."""
    body: dict[str, Any] = {
        "event_id": f"{event.request_id}:{event.item_id}:{event.action}",
        "request_id": event.request_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "ts": event.ts,
        "action": event.action,
    }
    if not math.isnan(value):
        body["value"] = value
    return body
