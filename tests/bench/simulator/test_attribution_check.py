"""The check of a live run finds each fault that it is there for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from bench.simulator.attribution_check import AttributionFigures, check_attribution
from bench.simulator.traffic import SentEvent

SHOWN = SentEvent("r1", "i1", "u1", "", 1_000, 1_050)
OTHER = replace(SHOWN, item_id="i2")
CLICK = replace(SHOWN, action="click", ts=2_000)
TOO_LATE = replace(OTHER, action="click", ts=12_000)
LIKE = replace(SHOWN, action="like", ts=3_000)
STRAY = replace(CLICK, request_id="r2")
SENT = [SHOWN, OTHER, SHOWN, CLICK, CLICK, TOO_LATE, LIKE, STRAY]


def shown(event: SentEvent) -> dict[str, Any]:
    return {
        "shown_at": event.ts,
        "request_id": event.request_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "ts": event.ts,
    }


def acted(event: SentEvent, ts: int = 1_000) -> dict[str, Any]:
    record = shown(event) | {"action_at": event.ts, "action": event.action, "ts": ts}
    del record["shown_at"]
    return record


RIGHT = [shown(SHOWN), shown(OTHER), acted(CLICK)]


def found(records: Iterable[dict[str, Any]]) -> AttributionFigures:
    return check_attribution(SENT, records, labelling=frozenset({"click"}), attribution_ms=10_000)


def test_what_is_right_has_no_fault() -> None:
    assert found(RIGHT) == AttributionFigures(2, 0, 0, 1, 0, 0)


@pytest.mark.parametrize(
    ("records", "fault"),
    [
        (RIGHT[1:], "lost_impressions"),
        ([*RIGHT, shown(SHOWN)], "extra_impressions"),
        ([*RIGHT, shown(STRAY)], "extra_impressions"),
        (RIGHT[:2], "lost_actions"),
        ([*RIGHT, acted(CLICK)], "wrong_actions"),
        ([*RIGHT, acted(TOO_LATE)], "wrong_actions"),
        ([*RIGHT, acted(STRAY)], "wrong_actions"),
        ([*RIGHT, acted(LIKE)], "wrong_actions"),
        ([*RIGHT[:2], acted(CLICK, ts=999)], "wrong_actions"),
    ],
)
def test_each_fault_is_counted_once(records: list[dict[str, Any]], fault: str) -> None:
    right = found(RIGHT).to_json()
    assert found(records).to_json() == right | {fault: 1}
