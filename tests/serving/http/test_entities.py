"""Users and items over HTTP: put, changed and deleted, and used from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from streaming.kafka.topics import ITEMS, USERS
from tests.serving.conftest import ITEM_IDS

if TYPE_CHECKING:
    from tests.serving.conftest import World


def put(world: World, path: str, *entities: tuple[str, dict[str, Any]]) -> None:
    """Put entities; they must be taken."""
    body = {"upsert": [{"id": id_, "attributes": attributes} for id_, attributes in entities]}
    answer = world.http.post(path, json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json() == {"upserted": len(entities), "deleted": 0}


def delete(world: World, path: str, *ids: str) -> None:
    answer = world.http.post(path, json={"delete": ids})
    assert answer.json() == {"upserted": 0, "deleted": len(ids)}


def held(world: World, path: str) -> dict[str, Any]:
    found: dict[str, Any] = world.http.get(path).json()
    return found


def ranked(world: World, **body: object) -> dict[str, float]:
    answer = world.rank("u1", k=1_000, **body)
    return {item["item_id"]: item["score"] for item in answer["items"]}


def test_a_changed_attribute_of_a_user_is_used_at_the_next_request(shared: World) -> None:
    before = ranked(shared)
    put(shared, "/v1/users", ("u1", {"gender": "F", "age": "56", "occupation": "artist"}))
    shared.until(lambda: held(shared, "/v1/users/u1")["attributes"]["age"] == "56")
    assert ranked(shared) != before
    delete(shared, "/v1/users", "u1")
    shared.until(lambda: not held(shared, "/v1/users/u1")["known"])
    assert held(shared, "/v1/users/u1")["attributes"] == {"gender": "", "age": "", "occupation": ""}
    assert len(ranked(shared)) == len(before)


def test_an_item_comes_changes_and_goes(shared: World) -> None:
    assert "fresh" not in ranked(shared)
    put(shared, "/v1/items", ("fresh", {"genres": ["War"], "decade": "1990"}))
    shared.until(lambda: "fresh" in ranked(shared))
    war = ranked(shared)["fresh"]
    put(shared, "/v1/items", ("fresh", {"genres": ["Comedy"], "decade": "1990"}))
    shared.until(lambda: ranked(shared)["fresh"] != war)
    delete(shared, "/v1/items", "fresh", "i3")
    shared.until(lambda: not held(shared, "/v1/items/i3")["known"])
    assert ranked(shared).keys() == {*ITEM_IDS, "newcomer"} - {"i3"}
    assert ranked(shared, candidates=["i3", "i4", "fresh"]).keys() == {"i4"}
    assert ranked(shared, candidates=["i3"]) == {}
    put(shared, "/v1/items", ("i3", {"genres": ["Drama"], "decade": "1990"}))
    shared.until(lambda: "i3" in ranked(shared))
    assert ranked(shared, candidates=["i3", "i4"]).keys() == {"i3", "i4"}


@pytest.mark.parametrize(
    ("body", "status", "field", "cause"),
    [
        ({}, 422, None, "no change"),
        ({"upsert": [{"id": "x"}]}, 422, "upsert[0].attributes", "missing"),
        ({"upsert": [{"id": "", "attributes": {}}]}, 422, "upsert[0].id", "length >= 1"),
        ({"upsert": [{"id": "ä" * 129, "attributes": {}}]}, 422, "upsert[0].id", "258 bytes"),
        ({"delete": [""]}, 422, "delete[0]", "length >= 1"),
        ({"delete": ["x", "x"]}, 422, "delete[1]", "named twice"),
        (
            {"upsert": [{"id": "x", "attributes": {}}], "delete": ["x"]},
            422,
            "delete[0]",
            "named twice",
        ),
        (
            {"upsert": [{"id": "x", "attributes": {"genres": "War"}}]},
            422,
            "upsert[0].attributes.genres",
            "must be a list",
        ),
        (
            {"upsert": [{"id": "x", "attributes": {"decade": 1990}}]},
            422,
            "upsert[0].attributes.decade",
            "must be one text",
        ),
        (
            {"upsert": [{"id": "x", "attributes": {"text": "x" * 10**6}}]},
            422,
            "upsert[0].attributes",
            "bytes",
        ),
        ({"delete": [str(n) for n in range(10_001)]}, 413, None, "10001 records"),
    ],
)
def test_changes_that_cannot_be(
    shared: World, body: dict[str, Any], status: int, field: str | None, cause: str
) -> None:
    answer = shared.http.post("/v1/items", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["field"] == field
    assert cause in error["cause"]
    assert error["cure"]


def test_a_batch_with_an_error_changes_nothing(shared: World) -> None:
    good = {"id": "of a bad batch", "attributes": {}}
    body = {"upsert": [good, {"id": "x", "attributes": {"genres": "War"}}]}
    assert shared.http.post("/v1/items", json=body).status_code == 422
    put(shared, "/v1/users", ("last", {}))
    assert "last" in [e["id"] for e in shared.read(USERS)]
    assert "of a bad batch" not in [e["id"] for e in shared.read(ITEMS)]
