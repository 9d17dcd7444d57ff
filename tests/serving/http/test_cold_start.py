"""A server ranks from its first request on, and says how; ready is more than alive."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from features.feast_repo import folder
from features.logs.movielens_features import MOVIELENS
from inttower.errors import StoreError
from inttower.publish.store import ModelStore
from streaming.kafka.topics import ITEM_FEATURES, RANKINGS
from tests.serving.conftest import ITEM_IDS, NOW

if TYPE_CHECKING:
    import pytest

    from inttower.models.inttower import IntTower
    from inttower.publish.pointer import Pointer
    from tests.serving.conftest import World


def item_row(item: str, impressions: int, clicks: int) -> bytes:
    """A record of features.item as the job writes it."""
    values: dict[str, Any] = {f.name: 0 for f in MOVIELENS.of_entity("item")}
    values |= {"item_impressions": impressions, "item_clicks": clicks}
    return msgspec.json.encode({"item_id": item, "ts": NOW, **values})


def test_without_a_version_it_ranks_by_popularity(
    make_world: Callable[..., World], model: IntTower
) -> None:
    world = make_world()
    topic = world.settings.topic(ITEM_FEATURES)
    for item, shown, clicks in (("i7", 100, 90), ("i3", 100, 10), ("elsewhere", 10, 10)):
        world.kafka.send(topic, item_row(item, shown, clicks), item.encode())
    world.kafka.send(topic, b"no row", b"x")
    world.kafka.flush()
    world.start()
    # from the first request on, if by nothing yet
    first = world.rank("u1", candidates=["i3", "i7"])
    assert (first["cold"], first["version"], first["delta"]) == (True, None, -1)
    assert len(first["items"]) == 2
    world.until(lambda: world.http.get("/readyz").is_success)
    answer = world.rank("u1", candidates=["i3", "i5", "i7"])
    assert answer["cold"]
    assert [item["item_id"] for item in answer["items"]] == ["i7", "i5", "i3"]
    assert answer["items"][0]["score"] > 0.8
    every = {item["item_id"] for item in world.rank("u1", k=1_000)["items"]}
    assert every == {*ITEM_IDS, "newcomer", "elsewhere"}
    # an event counts as soon as the job tells of it
    world.kafka.send(topic, item_row("i5", 1_000, 999), b"i5")
    world.until(lambda: world.rank("u1", k=1)["items"][0]["item_id"] == "i5")
    assert world.metric("headrace_rank_cold_total", channel="champion") >= 4
    assert world.http.get("/v1/items/i5").json()["channels"] == {}
    world.publish(model, "000001")
    world.until(lambda: not world.rank("u1")["cold"])
    assert world.rank("u1")["version"] == "000001"
    assert world.rank("u1", channel="frozen")["cold"]
    world.until(lambda: world.metric("headrace_outbox_pending") == 0)
    assert {"version" in ranking for ranking in world.read(RANKINGS)} == {True, False}


def test_ready_means_that_what_there_is_has_been_taken_in(
    make_world: Callable[..., World], model: IntTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, away = make_world(), True
    world.publish(model, "000001")
    pointer = ModelStore.pointer

    def look(store: ModelStore, channel: str) -> Pointer | None:
        if away:
            raise StoreError("the store is away")
        return pointer(store, channel)

    monkeypatch.setattr(ModelStore, "pointer", look)
    world.start()
    world.until(lambda: "the store is away" in world.http.get("/readyz").text)
    assert world.http.get("/readyz").status_code == 503
    assert world.http.get("/healthz").json() == {"ok": True, "reason": None}
    assert world.rank("u1")["cold"]  # who asks all the same gets an answer
    away = False
    world.until(lambda: world.http.get("/readyz").is_success)
    assert world.http.get("/readyz").json() == {"ok": True, "reason": None}
    assert world.rank("u1")["version"] == "000001"


def test_a_damaged_feature_store_costs_the_features_not_the_answer(
    make_world: Callable[..., World], model: IntTower
) -> None:
    world = make_world()
    world.publish(model, "000001")
    world.start()
    world.until(lambda: world.serving() == ("000001", -1))
    sound = world.rank("u1")
    assert not sound["blank_features"]
    store = folder(world.settings) / "online.db"
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE headrace_user_features SET value = x'0a'")
    connection.close()
    damaged = world.rank("u1")
    assert damaged["blank_features"]
    assert damaged["items"] != sound["items"]
    assert len(damaged["items"]) == len(sound["items"])
    assert world.metric("headrace_rank_blank_features_total") >= 1
    held = world.http.get("/v1/users/u1")
    assert held.status_code == 503
    assert "headrace reset" in held.json()["error"]["cause"]
    store.write_bytes(b"no database" * 1_000)
    assert world.rank("u2")["blank_features"]
    world.until(lambda: world.http.get("/readyz").is_success)
