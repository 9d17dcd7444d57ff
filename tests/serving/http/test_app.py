"""The HTTP interface, over real HTTP: what it takes, what it refuses and how it says so."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.http.server import HttpServer
from settings.errors import ConfigurationError
from streaming.kafka.topics import CLICKS, IMPRESSIONS
from tests.serving.conftest import NOW

if TYPE_CHECKING:
    from tests.serving.conftest import World

YEAR_2999 = 32_472_144_000_000
LONG = "x" * 257
WIDE = "ä" * 129  # few characters, and 258 bytes
IMPRESSION = {"request_id": "r1", "user_id": "u1", "item_id": "i1", "ts": NOW}
CLICK = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "ts": NOW, "request_id": "r1"}


def refused(world: World, path: str, body: bytes, status: int, field: str | None) -> dict[str, Any]:
    """Post what must be refused in the one form of errors, by a server that lives on."""
    answer = world.http.post(path, content=body)
    assert answer.status_code == status, answer.text
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"status", "field", "cause", "cure"}
    assert (error["status"], error["field"]) == (status, field), error
    assert error["cause"]
    assert error["cure"]
    assert len(world.rank("u1", candidates=["i1"])["items"]) == 1
    return error


# ---------------------------------------------------------------------- /v1/rank


@pytest.mark.parametrize(
    ("changes", "field", "cause"),
    [
        ({"candidates": []}, "candidates", "length >= 1"),
        ({"candidates": [f"i{n}" for n in range(100_001)]}, "candidates", "limit is 100000"),
        ({"candidates": "some"}, "candidates", "some"),
        ({"candidates": None}, "candidates", "null"),
        ({"candidates": ["i1", ""]}, "candidates[1]", "length >= 1"),
        ({"candidates": ["i1", LONG]}, "candidates[1]", "256"),
        ({"candidates": ["i1", WIDE]}, "candidates[1]", "258 bytes"),
        ({"candidates": ["i1", 2]}, "candidates[1]", "int"),
        ({"user_id": ""}, "user_id", "length >= 1"),
        ({"user_id": 7}, "user_id", "int"),
        ({"user_id": LONG}, "user_id", "256"),
        ({"user_id": WIDE}, "user_id", "258 bytes"),
        ({"request_id": ""}, "request_id", "length >= 1"),
        ({"request_id": WIDE}, "request_id", "258 bytes"),
        ({"ts": -1}, "ts", ">="),
        ({"ts": NOW // 1000}, "ts", ">="),
        ({"ts": YEAR_2999}, "ts", "ahead"),
        ({"ts": 2**60}, "ts", "<="),
        ({"ts": "yesterday"}, "ts", "str"),
        ({"ts": 1.5}, "ts", "float"),
        ({"k": 0}, "k", ">= 1"),
        ({"k": "ten"}, "k", "str"),
        ({"channel": "nowhere"}, "channel", "champion, frozen"),
        ({"context": {"page": "x" * 4096}}, "context", "bytes"),
        ({"context": []}, "context", "array"),
        ({"log": True}, "log", "bool"),
        ({"usr": "u1"}, "usr", "unknown field"),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_ranking_that_cannot_be(
    shared: World, changes: dict[str, Any], field: str, cause: str
) -> None:
    body = {"user_id": "u1", "candidates": ["i1"], **changes}
    error = refused(shared, "/v1/rank", json.dumps(body).encode(), 422, field)
    assert cause in error["cause"]


@pytest.mark.parametrize("name", ["user_id", "candidates"])
def test_a_ranking_without(shared: World, name: str) -> None:
    body = {"user_id": "u1", "candidates": ["i1"]}
    del body[name]
    error = refused(shared, "/v1/rank", json.dumps(body).encode(), 422, name)
    assert "missing" in error["cause"]


NO_JSON = [
    b"",
    b"{",
    b"\xff",
    b'{"user_id": "\xff", "candidates": "all"}',
    b'{"user_id": "\\ud800", "candidates": "all"}',
    b'{"context": ' + b'{"a": ' * 100_000,
]


@pytest.mark.parametrize("path", ["/v1/rank", "/v1/events"])
@pytest.mark.parametrize("body", NO_JSON, ids=range(len(NO_JSON)))
def test_what_is_no_json(shared: World, path: str, body: bytes) -> None:
    assert "not JSON" in refused(shared, path, body, 400, None)["cause"]


@pytest.mark.parametrize("path", ["/v1/rank", "/v1/events"])
@pytest.mark.parametrize("body", [b"null", b"7", b"[]", b'"all"'])
def test_what_is_no_object(shared: World, path: str, body: bytes) -> None:
    assert "object" in refused(shared, path, body, 422, None)["cause"]


@pytest.mark.parametrize("path", ["/v1/rank", "/v1/events"])
def test_a_huge_body_is_not_even_read(shared: World, path: str) -> None:
    assert "bytes" in refused(shared, path, b" " * 28_000_000, 413, None)["cause"]


_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
_FIELDS = ["user_id", "candidates", "k", "context", "request_id", "ts", "channel", "log"]
_EVENT_FIELDS = ["request_id", "event_id", "user_id", "item_id", "ts", "score", "context", "clicks"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(_FIELDS), _VALUES))
def test_no_ranking_request_hurts(shared: World, changes: dict[str, Any]) -> None:
    answer = shared.http.post("/v1/rank", json={"user_id": "u", "candidates": ["i1"], **changes})
    assert answer.status_code in {200, 422}, answer.text
    assert answer.status_code == 200 or answer.json()["error"]["cure"]


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from(_EVENT_FIELDS), _VALUES))
def test_no_event_hurts(shared: World, changes: dict[str, Any]) -> None:
    answer = shared.http.post("/v1/events", json={**IMPRESSION, **changes})
    assert answer.status_code in {202, 422}, answer.text
    assert answer.status_code == 202 or answer.json()["error"]["cure"]


def test_a_client_that_leaves_hurts_nobody(shared: World) -> None:
    address = ("127.0.0.1", shared.settings.serving.port)
    for start in (b"POST /v1/rank HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{", b"\xff\r\n"):
        with socket.create_connection(address) as client:
            client.sendall(start)
    assert shared.rank("u1")["items"]


def test_the_largest_request_that_is_allowed(shared: World) -> None:
    names = [f"i{n}" for n in range(99_999)]
    assert len(shared.rank("u1", candidates=[*names, "i1"], k=5_000)["items"]) == 5_000


def test_what_would_not_fit_the_log_is_refused(shared: World) -> None:
    """Nothing is answered that could then not be logged."""
    long = [f"{'x' * 200}{n}" for n in range(20_000)]
    body: dict[str, Any] = {"user_id": "u1", "candidates": long, "k": 10_000}
    error = refused(shared, "/v1/rank", json.dumps(body).encode(), 422, "k")
    assert "the log takes 1000000" in error["cause"]
    most = int(error["cure"].split("at most ")[1].split()[0])
    assert len(shared.rank("u1", **{**body, "k": most})["items"]) == most
    body |= {"k": 20_000, "log": "shown"}
    error = refused(shared, "/v1/rank", json.dumps(body).encode(), 422, "k")
    assert "20000 items would be logged" in error["cause"]
    many = json.dumps({"impressions": [IMPRESSION] * 10_001}).encode()
    assert "10001 records" in refused(shared, "/v1/events", many, 413, None)["cause"]


# ---------------------------------------------------------------------- /v1/events


@pytest.mark.parametrize(
    ("body", "topic", "count"),
    [
        (IMPRESSION, IMPRESSIONS, (1, 0)),
        (CLICK, CLICKS, (0, 1)),
        ({"impressions": [IMPRESSION, IMPRESSION]}, IMPRESSIONS, (2, 0)),
        ({"clicks": [CLICK], "impressions": [IMPRESSION]}, CLICKS, (1, 1)),
    ],
)
def test_events_are_in_kafka_when_the_answer_comes(
    shared: World, body: dict[str, Any], topic: str, count: tuple[int, int]
) -> None:
    user = f"user {time.monotonic_ns()}"
    text = json.dumps(body).replace('"u1"', json.dumps(user))
    answer = shared.http.post("/v1/events", content=text)
    assert answer.status_code == 202
    assert answer.json() == {"impressions": count[0], "clicks": count[1]}
    found = [event for event in shared.read(topic) if event["user_id"] == user]
    event = CLICK if topic == CLICKS else IMPRESSION
    assert found == [{**event, "user_id": user}] * count[topic == CLICKS]


def test_an_event_that_pretends_to_be_a_time_mark_stays_an_event(shared: World) -> None:
    """The job would take a record with this field for a mark, and the click would be gone."""
    posted = {**CLICK, "user_id": "of a time mark", "time_mark": None}
    assert shared.http.post("/v1/events", json=posted).status_code == 202
    [found] = [e for e in shared.read(CLICKS) if e["user_id"] == "of a time mark"]
    assert found == without(posted, "time_mark")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1" + "0" * 400, "NaN", "Infinity"])
def test_a_number_that_is_none_is_refused(shared: World, number: str) -> None:
    """It would stop the trainer, again after each restart."""
    for field in ("score", "propensity"):
        body = json.dumps({**IMPRESSION, field: 0.5}).replace("0.5", number).encode()
        answer = shared.http.post("/v1/events", content=body)
        assert answer.status_code in {400, 422}, answer.text
        assert answer.status_code == 400 or answer.json()["error"]["field"] == field


def without(event: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != name}


BAD_EVENTS: list[tuple[dict[str, Any], str | None]] = [
    ({}, "request_id"),
    ({"impressions": [], "clicks": []}, "impressions"),
    ({"impressions": None}, "impressions"),
    ({"impressions": [IMPRESSION], "views": []}, "views"),
    ({"time_mark": NOW}, "request_id"),
    (without(IMPRESSION, "user_id"), "user_id"),
    (without(CLICK, "item_id"), "item_id"),
    (without(CLICK, "ts"), "ts"),
    ({**IMPRESSION, "user_id": 5}, "user_id"),
    ({**IMPRESSION, "user_id": ""}, "user_id"),
    ({**IMPRESSION, "item_id": LONG}, "item_id"),
    ({**IMPRESSION, "request_id": WIDE}, "request_id"),
    ({**CLICK, "event_id": ""}, "event_id"),
    ({**IMPRESSION, "ts": -1}, "ts"),
    ({**IMPRESSION, "ts": NOW // 1000}, "ts"),
    ({**CLICK, "ts": YEAR_2999}, "ts"),
    ({**CLICK, "ts": 2**70}, "ts"),
    ({**IMPRESSION, "score": "high"}, "score"),
    ({"impressions": [IMPRESSION], "clicks": [CLICK, {**CLICK, "ts": -1}]}, "clicks[1].ts"),
    ({"impressions": [IMPRESSION, {**IMPRESSION, "user_id": 5}]}, "impressions[1].user_id"),
    ({**IMPRESSION, "context": {"page": "x" * 2_000_000}}, None),
    ({"clicks": [CLICK, {**CLICK, "action": "x" * 2_000_000}]}, "clicks[1].action"),
    ({**CLICK, "action": "hide"}, "action"),
]


@pytest.mark.parametrize(
    ("body", "field"), BAD_EVENTS, ids=[json.dumps(body)[:60] for body, _ in BAD_EVENTS]
)
def test_of_a_post_with_an_error_nothing_is_kept(
    shared: World, body: dict[str, Any], field: str | None
) -> None:
    text = json.dumps(body).replace('"u1"', '"of a bad post"').encode()
    refused(shared, "/v1/events", text, 422, field)


def test_nothing_of_the_bad_posts_is_in_kafka(shared: World) -> None:
    """Behind the tests above; one look at the topics for all of them."""
    assert shared.http.post("/v1/events", json={**CLICK, "user_id": "last"}).status_code == 202
    users = {event["user_id"] for topic in (CLICKS, IMPRESSIONS) for event in shared.read(topic)}
    assert "last" in users
    assert "of a bad post" not in users


# ---------------------------------------------------------------------- what is held


@pytest.mark.parametrize("entity", ["users", "items"])
@pytest.mark.parametrize("name", ["a/b", "/a//b/", "../../x", "?", "käse", "\u0000", "x" * 256])
def test_any_id_can_be_looked_up(shared: World, entity: str, name: str) -> None:
    path = "".join(f"%{byte:02X}" for byte in name.encode())
    answer = shared.http.get(f"/v1/{entity}/{path}")
    assert answer.status_code == 200, answer.text
    held = answer.json()
    assert (held["id"], held["features"]) == (name, None)
    assert held["channels"]["champion"]["known"] is False


@pytest.mark.parametrize("name", ["", LONG])
@pytest.mark.parametrize("entity", ["user", "item"])
def test_an_id_that_cannot_be(shared: World, entity: str, name: str) -> None:
    answer = shared.http.get(f"/v1/{entity}s/{name}")
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == f"{entity}_id"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("GET", "/v1/users", 405), ("GET", "/v1/rank", 405), ("PUT", "/docs", 405)],
)
def test_other_paths_get_errors_of_the_same_form(
    shared: World, method: str, path: str, status: int
) -> None:
    answer = shared.http.request(method, path)
    assert answer.status_code == status
    assert "/docs" in answer.json()["error"]["cure"]


def test_versions(shared: World) -> None:
    answer = shared.http.get("/v1/versions").json()
    assert set(answer["channels"]) == {"champion", "frozen"}
    assert answer["channels"]["frozen"] == {"serves": None, "refused": []}
    held = answer["channels"]["champion"]["serves"]
    assert (held["version"], held["delta"], held["delta_created_ms"]) == ("000001", -1, None)
    assert (held["items"], held["users"]) == (40, 12)
    assert 0 <= held["loaded_ms"] - held["created_ms"] < 60_000
    assert (answer["experiment"], answer["shares"]) == ("champion", {"champion": 1.0})


def test_the_page_describes_every_route(shared: World) -> None:
    page = shared.http.get("/openapi.json").json()
    assert set(page["paths"]) == {
        *("/v1/rank", "/v1/events", "/v1/users", "/v1/users/{user_id}"),
        *("/v1/items", "/v1/items/{item_id}"),
        *("/v1/versions", "/healthz", "/readyz", "/metrics"),
    }
    schemas = page["components"]["schemas"]
    assert set(schemas["RankRequest"]["required"]) == {"user_id", "candidates"}
    named = {part.partition('"')[0] for part in json.dumps(page).split("#/components/schemas/")[1:]}
    assert named <= set(schemas)
    assert "RankAnswer" in named
    assert "swagger" in shared.http.get("/docs").text


METRICS = [
    *("rank_seconds_bucket", "rank_candidates_bucket", "rank_unknown_items_total"),
    *("requests_refused_total", "exposures_total", "outbox_pending", "outbox_delivered_total"),
    *("channel_version_info", "channel_version_created_seconds", "channel_rows"),
    *("channel_delta", "channel_freshness_seconds"),
]


def test_metrics(shared: World) -> None:
    shared.rank("u1", candidates=["i1", "never heard of"], log="shown")
    shared.until(lambda: shared.metric("headrace_outbox_pending") == 0)
    answer = shared.http.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    there = {line.partition("{")[0].partition(" ")[0] for line in answer.text.splitlines()}
    assert {f"headrace_{name}" for name in METRICS} <= there
    channel = {"channel": "champion"}
    assert shared.metric("headrace_rank_unknown_items_total", **channel) >= 1
    assert shared.metric("headrace_channel_version_info", version="000001", **channel) == 1
    assert shared.metric("headrace_channel_rows", side="item", **channel) == 40


def test_clients_cannot_make_up_metrics(shared: World) -> None:
    """A label that a client chooses would let a broken one fill the server's memory."""
    for name in ("made_up_1", "made_up_2"):
        body = {"user_id": "u1", "candidates": ["i1"], name: 1}
        assert shared.http.post("/v1/rank", json=body).status_code == 422
    assert "made_up" not in shared.http.get("/metrics").text
    refusals = {"path": "/v1/rank", "status": "422", "field": "other"}
    assert shared.metric("headrace_requests_refused_total", **refusals) >= 2


# ---------------------------------------------------------------------- the server itself


def test_a_port_that_is_taken(shared: World) -> None:
    with pytest.raises(ConfigurationError, match=r"serving\.port"):
        HttpServer(shared.settings)
