"""Rankings over HTTP: right scores, for known and unknown users and items."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy.special import expit

from inttower.models.inttower import IntTower
from inttower.publish.published import score

if TYPE_CHECKING:
    from tests.serving.conftest import World


def expected(world: World, model: IntTower, user: str, items: list[str]) -> dict[str, float]:
    """What the model itself says of known users and items."""
    held = world.models.held(model)
    known = user in held.user_ids
    vector = held.base.user_vector(
        world.models.user_columns_of(user),
        held.user_rows[list(held.user_ids).index(user)] if known else None,
        held.rows_of_items,
    )
    rows = [list(held.item_ids).index(item) for item in items]
    return dict(zip(items, expit(score(vector, held.item_vectors[rows])).tolist(), strict=True))


def test_scores_are_those_of_the_model(world: World, model: IntTower) -> None:
    answer = world.rank("u3", k=40)
    got = {item["item_id"]: item["score"] for item in answer["items"]}
    names = [f"i{n}" for n in range(40)]
    assert {n: got[n] for n in names if n in got} == pytest.approx(
        {n: s for n, s in expected(world, model, "u3", names).items() if n in got}, abs=1e-5
    )
    scores = [item["score"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert (answer["version"], answer["delta"], answer["model"]) == ("000001", -1, "champion")
    # "all" holds what the catalogue has and the model has not learnt yet, too
    assert {i["item_id"] for i in world.rank("u3", k=100)["items"]} == {*names, "newcomer"}


def test_the_best_k_of_some_candidates(world: World, model: IntTower) -> None:
    names = ["i5", "i9", "i20", "i33", "i5"]
    wanted = expected(world, model, "u3", names)
    best = sorted(wanted, key=lambda n: -wanted[n])
    answer = world.rank("u3", candidates=names, k=3)
    assert [item["item_id"] for item in answer["items"]] == best[:3]
    assert len(world.rank("u3", candidates=names, k=50)["items"]) == 4


def test_unknown_users_and_items_are_ranked(world: World, model: IntTower) -> None:
    stranger = world.rank("somebody", candidates=["i1", "i2"])
    assert {i["item_id"]: i["score"] for i in stranger["items"]} == pytest.approx(
        expected(world, model, "somebody", ["i1", "i2"]), abs=1e-5
    )
    odd = ["käse", "\u0000", "nobody", "newcomer", "i1"]
    answer = world.rank("u1", candidates=odd)
    scores = {i["item_id"]: i["score"] for i in answer["items"]}
    assert set(scores) == set(odd)
    # what is wholly unknown looks the same; what the catalogue knows is told apart
    assert scores["käse"] == pytest.approx(scores["nobody"], abs=1e-6)
    assert abs(scores["newcomer"] - scores["nobody"]) > 1e-6
    assert all(0 < s < 1 and np.isfinite(s) for s in scores.values())


def test_the_request_time_counts(world: World) -> None:
    """The gap since a user's last event is an input: the same request later scores otherwise."""
    early = world.rank("u1", candidates=["i1"])["items"][0]["score"]
    late = world.rank("u1", candidates=["i1"], ts=1_700_009_000_000)["items"][0]["score"]
    assert early != late


def test_what_is_held_can_be_looked_up(world: World) -> None:
    user = world.http.get("/v1/users/u2").json()
    assert user["features"]["user_impressions"] == 5
    assert user["features"]["user_liked"] == ["i2", "i3"]
    assert user["attributes"]["gender"] == "F"
    assert user["channels"]["champion"] == {
        "version": "000001",
        "delta": -1,
        "known": True,
        "ts": None,
    }
    item = world.http.get("/v1/items/newcomer").json()
    assert item["attributes"]["genres"] == ["Drama", "Comedy"]
    assert item["channels"]["champion"]["known"] is False
    nobody = world.http.get("/v1/users/no%20body%2F").json()
    assert (nobody["id"], nobody["features"]) == ("no body/", None)
