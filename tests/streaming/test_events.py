from __future__ import annotations

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings.errors import EventError
from streaming.events import (
    MAX_ID_BYTES,
    SECONDS_LIMIT,
    Click,
    DeadLetter,
    Impression,
    TimeMark,
    decode_event,
    encode,
)

NOW = 1_700_000_000_000
GOOD: dict[type[Any], dict[str, Any]] = {
    Impression: {"request_id": "r", "user_id": "u", "item_id": "i", "ts": NOW},
    Click: {"event_id": "e", "user_id": "u", "item_id": "i", "ts": NOW},
}
KINDS: list[type[Any]] = [Impression, Click]

ids = st.text(min_size=1, max_size=40).filter(lambda text: len(text.encode()) <= MAX_ID_BYTES)
times = st.integers(SECONDS_LIMIT, NOW)


def refusal(kind: type[Any], data: bytes) -> EventError:
    with pytest.raises(EventError) as caught:
        decode_event(kind, data, record_ms=NOW, max_ahead_ms=1000, max_late_ms=50_000)
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("changes", "reason", "field"),
    [
        ({"user_id": None}, "missing_field", "user_id"),
        ({"ts": ...}, "missing_field", "ts"),
        ({"item_id": ...}, "missing_field", "item_id"),
        ({"user_id": 5}, "wrong_type", "user_id"),
        ({"ts": "1700000000000"}, "wrong_type", "ts"),
        ({"ts": 1.5}, "wrong_type", "ts"),
        ({"ts": True}, "wrong_type", "ts"),
        ({"item_id": ["i"]}, "wrong_type", "item_id"),
        ({"user_id": ""}, "bad_id", "user_id"),
        ({"item_id": "x" * 257}, "bad_id", "item_id"),
        ({"item_id": "ü" * 129}, "bad_id", "item_id"),
        ({"ts": -1}, "time_negative", "ts"),
        ({"ts": 0}, "time_in_seconds", "ts"),
        ({"ts": 1_700_000_000}, "time_in_seconds", "ts"),
        ({"ts": NOW + 1001}, "time_in_future", "ts"),
        ({"ts": 32_472_144_000_000}, "time_in_future", "ts"),  # the year 2999
        ({"ts": 10**30}, "wrong_type", "ts"),
        ({"ts": 10**400}, "wrong_type", "ts"),
        ({"ts": NOW - 50_001}, "too_late", "ts"),
        # several faults: the order of the reasons decides, not the order of the fields
        ({"request_id": 7, "event_id": 7, "ts": ...}, "missing_field", "ts"),
        ({"user_id": "", "ts": "x"}, "wrong_type", "ts"),
        ({"user_id": "", "ts": -1}, "bad_id", "user_id"),
    ],
)
def test_refuses_with_reason_and_field(
    kind: type, changes: dict[str, Any], reason: str, field: str
) -> None:
    fields = {**GOOD[kind], **changes}
    data = json.dumps({name: value for name, value in fields.items() if value is not ...}).encode()
    error = refusal(kind, data)
    assert (error.reason, error.field) == (reason, field)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"5", b"null", b'{"a":1}x', b"\xff\xfe", b'{"ts":NaN}', b"[" * 100_000],
)
def test_refuses_what_is_not_an_object(data: bytes) -> None:
    assert refusal(Impression, data).reason == "malformed_json"


def test_optional_fields_are_checked_too() -> None:
    wrong: dict[str, Any] = {"position": "first", "score": "high", "context": []}
    for name, value in wrong.items():
        error = refusal(Impression, json.dumps({**GOOD[Impression], name: value}).encode())
        assert (error.reason, error.field) == ("wrong_type", name)
    error = refusal(Click, json.dumps({**GOOD[Click], "request_id": ""}).encode())
    assert (error.reason, error.field) == ("bad_id", "request_id")


def test_unknown_fields_pass() -> None:
    data = json.dumps({**GOOD[Click], "campaign": {"a": [1]}}).encode()
    assert decode_event(Click, data, record_ms=NOW, max_ahead_ms=0) == Click(**GOOD[Click])


def test_an_event_may_be_as_far_ahead_as_allowed() -> None:
    data = json.dumps({**GOOD[Click], "ts": NOW + 1000}).encode()
    event = decode_event(Click, data, record_ms=NOW, max_ahead_ms=1000)
    assert isinstance(event, Click)


@pytest.mark.parametrize("kind", KINDS)
def test_time_marks(kind: type[Any]) -> None:
    mark = TimeMark(time_mark=NOW)
    assert decode_event(kind, encode(mark), record_ms=NOW, max_ahead_ms=0) == mark
    # anything else is an event, whatever else it says, and not a mark
    for odd in (b'"soon"', b"null", b"5", b"-978300760000", b"9783007600000000"):
        assert refusal(kind, b'{"time_mark":%s}' % odd).reason == "missing_field"
    data = json.dumps({**GOOD[kind], "time_mark": NOW}).encode()
    assert isinstance(decode_event(kind, data, record_ms=NOW, max_ahead_ms=0), kind)


@pytest.mark.parametrize("name", ["score", "propensity", "context"])
@pytest.mark.parametrize("number", [b"1e400", b"-1e999", b"1" + b"0" * 400])
def test_numbers_that_no_double_holds_are_refused(name: str, number: bytes) -> None:
    value = b'{"a":[%s]}' % number if name == "context" else number
    data = json.dumps(GOOD[Impression]).encode()[:-1] + b',"%s":%s}' % (name.encode(), value)
    assert refusal(Impression, data).reason == "wrong_type"
    assert refusal(Impression, data[:-1]).reason == "malformed_json"


def test_a_kind_of_action_must_be_declared() -> None:
    kinds = {"like", "click"}
    for action in (None, "like"):
        data = json.dumps({**GOOD[Click], "action": action}).encode()
        assert decode_event(Click, data, record_ms=NOW, max_ahead_ms=0, actions=kinds)
    for action in ("laugh", ""):
        data = json.dumps({**GOOD[Click], "action": action}).encode()
        with pytest.raises(EventError, match=r"none of .*declare it") as caught:
            decode_event(Click, data, record_ms=NOW, max_ahead_ms=0, actions=kinds)
        assert (caught.value.reason, caught.value.field) == ("unknown_action", "action")


@given(
    event=st.builds(
        Impression,
        request_id=ids,
        user_id=ids,
        item_id=ids,
        ts=times,
        position=st.none() | st.integers(0, 1000),
        score=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        variant=st.none() | st.text(),
        version=st.none() | st.text(),
        propensity=st.none(),
        context=st.none() | st.dictionaries(st.text(), st.integers(0, 9)),
    )
)
def test_impressions_come_back_as_they_were(event: Impression) -> None:
    assert decode_event(Impression, encode(event), record_ms=NOW, max_ahead_ms=0) == event


@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for kind in KINDS:
        # anything but an EventError with a reason would come through
        with contextlib.suppress(EventError):
            decode_event(kind, data, record_ms=NOW, max_ahead_ms=0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(
    fields=st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(
            ("request_id", "user_id", "item_id", "ts", "score", "time_mark"), json_values
        ),
    )
)
def test_any_object_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        data = json.dumps(fields, allow_nan=False).encode()
    except ValueError:  # infinity has no JSON
        return
    with contextlib.suppress(EventError):
        assert isinstance(
            decode_event(Impression, data, record_ms=NOW, max_ahead_ms=0), Impression | TimeMark
        )


def test_a_dead_letter_keeps_the_bytes_untouched() -> None:
    letter = DeadLetter(
        topic="clicks", partition=1, offset=7, reason="malformed_json", value=b"\xff{"
    )
    assert msgspec.json.decode(encode(letter), type=DeadLetter) == letter
