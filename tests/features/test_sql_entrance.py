"""What the job takes for a plain record must be one with which only the time can be wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.sql_entrance import CLICK, IMPRESSION, Entrance
from streaming.events import Click, Impression, decode_event, encode

KINDS: list[tuple[Entrance, type[Any]]] = [(IMPRESSION, Impression), (CLICK, Click)]
# no event of 13 digits is ahead of this
FAR = 10**14


@pytest.mark.parametrize(("entrance", "kind"), KINDS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_a_plain_record_is_accepted_by_the_decoder(
    entrance: Entrance, kind: type[Any], data: st.DataObject
) -> None:
    text = data.draw(st.from_regex(re.compile(entrance.plain, re.ASCII)))
    event = decode_event(kind, text.encode(), record_ms=FAR, max_ahead_ms=0)
    assert isinstance(event, kind)
    # its pieces are where the SQL cuts
    pieces = text.split('"')
    ids = [c.name for c in entrance.columns if c.required]
    assert [pieces[k - 1] for k in (4, 8, 12)] == [getattr(event, name) for name in ids]
    assert pieces[14][1:-1] == str(event.ts)


short = st.from_regex(r"\A[ !#-\[\]-~]{1,64}\Z")
time = st.integers(10**11, 10**13 - 1)
# what is smaller than any score has an exponent of three digits, and goes to the parser
number = st.none() | st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-99)


@given(
    st.builds(
        Impression,
        request_id=short,
        user_id=short,
        item_id=short,
        ts=time,
        position=st.none() | st.integers(0, 10**6),
        score=number,
        variant=st.none() | short,
        version=st.none() | short,
        propensity=number,
        context=st.none(),
    )
)
def test_an_impression_as_we_encode_it_is_plain(event: Impression) -> None:
    assert re.search(IMPRESSION.plain, encode(event).decode())


@given(
    st.builds(
        Click,
        event_id=short,
        user_id=short,
        item_id=short,
        ts=time,
        request_id=st.none() | short,
        action=st.none() | short,
        value=number,
    )
)
def test_a_click_as_we_encode_it_is_plain(event: Click) -> None:
    assert re.search(CLICK.plain, encode(event).decode())


@pytest.mark.parametrize(
    "text",
    [
        '{"event_id":"e","user_id":"u","item_id":"","ts":978300019000}',
        '{"event_id":"e","user_id":"u","item_id":"i","ts":978300019}',
        '{"event_id":"e","user_id":"u","item_id":"i","ts":"978300019000"}',
        '{"event_id":"e","user_id":"u","item_id":"é","ts":978300019000}',
        '{"event_id":"e","user_id":"u","item_id":"\\u0041","ts":978300019000}',
        '{"event_id":"e","user_id":"u","item_id":"i","ts":978300019000,"value":01}',
        '{"event_id":"e","user_id":"u","item_id":"i","ts":978300019000}{}',
        '{"user_id":"u","event_id":"e","item_id":"i","ts":978300019000}',
        '{"event_id":"e","user_id":"u","item_id":"i","ts":978300019000}\n',
        '{"time_mark":978300019000}',
    ],
)
def test_all_else_is_left_to_the_parser(text: str) -> None:
    assert not re.search(CLICK.plain, text)
