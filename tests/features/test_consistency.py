"""Served against trained features: equal ones count as equal, and a stale read is seen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from features.consistency import Consistency, measure
from features.logs.movielens_features import MOVIELENS
from features.samples import features_type
from settings.settings import Settings
from streaming.events import Ranking, encode
from streaming.kafka.client import create_topics
from streaming.kafka.writer import Writer

T = 978_300_760_123


def _values(clicks: int) -> dict[str, Any]:
    return {
        "user_impressions": 9,
        "user_clicks": clicks,
        "user_expected": 7.123456,
        "user_first_ts": T - 10,
        "user_last_ts": T - 1,
        "user_last_click_ts": T - 1,
        "user_sitting_impressions": 2,
        "user_sitting_clicks": 1,
    }


def _sample(request: str, item: str, clicks: int) -> bytes:
    items = dict.fromkeys(("item_impressions", "item_clicks", "item_first_ts", "item_last_ts"), 0)
    features = {**_values(clicks), "user_liked": [f"{T:013d}7", None], **items}
    return msgspec.json.encode(
        {
            "request_id": request,
            "user_id": "1",
            "item_id": item,
            "ts": T,
            "shown_at": T,
            "features": features,
            "impression_at": [0, 0],
        }
    )


def _ranking(request: str, clicks: int | None) -> bytes:
    features = None if clicks is None else {**_values(clicks), "user_liked": ["7"]}
    ranking = Ranking(request_id=request, user_id="1", ts=T, model="m", items=[], features=features)
    return encode(ranking)


def test_each_request_is_compared_once_on_the_topics(cluster: Settings) -> None:
    create_topics(cluster)
    assert measure(cluster, MOVIELENS) == []
    with Writer(cluster, bulk=False) as out:
        asked = {"fresh": 6, "stale": 4, "silent": None, "open": 6}
        for at, (request, count) in enumerate(asked.items()):
            out.send(cluster.topic("rankings"), at % 2, b"1", _ranking(request, count))
        samples = [b'{"watermark":5}']
        samples += [_sample("fresh", item, 6) for item in ("1", "2")]
        samples += [_sample(request, "1", 6) for request in ("stale", "silent")]
        for value in samples:
            out.send(cluster.topic("training.samples"), 0, b"1", value)
    found = {d.name: d for d in measure(cluster, MOVIELENS)}
    assert list(found) == [f.name for f in MOVIELENS.of_entity("user")]
    clicks = found.pop("user_clicks")
    assert (clicks.pairs, clicks.share, clicks.mean, clicks.largest) == (2, 0.5, 1.0, 2)
    assert {(d.pairs, d.share, d.largest) for d in found.values()} == {(2, 0.0, 0.0)}


@pytest.mark.parametrize(
    ("served", "differs", "size"),
    [(["a", "b"], 0.0, 0.0), (["b", "a"], 1.0, 0.0), ([], 1.0, 1.0), (["a", "c"], 1.0, 2 / 3)],
)
def test_lists_differ_by_order_and_by_what_only_one_has(
    served: list[str], differs: float, size: float
) -> None:
    trained = features_type(MOVIELENS)(0, 0, 0.0, 0, 0, ("a", "b"), 0, 0, 0, 0, 0, 0, 0)
    found = Consistency(MOVIELENS)
    found.add({"user_liked": served}, trained)
    (difference,) = found.differences()
    assert (difference.share, difference.mean) == (differs, size)
