"""What every log must do, run over each: small ones made up here, and real ones where they lie."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.log_rows import LogRows
from features.log_arrays import load
from features.logs.registry import declaration
from features.model_inputs import model_spec
from features.sql import render_job
from settings.errors import LogFileError
from settings.settings import Settings
from streaming.events import Click, Impression, check_event
from streaming.logs import READERS, EventLog, open_log
from streaming.logs.outcomes import Coded, OutcomeLog
from tests.streaming.logs.test_ali import write_ali
from tests.streaming.logs.test_amazon import write_amazon
from tests.streaming.made_up import made_up_log

REAL = Path(__file__).parents[3] / ".." / "shared" / "data"


def _real(name: str) -> EventLog:
    if not (REAL / name).is_dir():
        pytest.skip(f"the real log {name} is not on this machine")
    return open_log(name, REAL / name)


def _made_up(tmp_path: Path) -> EventLog:
    return made_up_log(60, users=5, name="ml-1m")


def _amazon(tmp_path: Path) -> EventLog:
    return open_log("amazon-electronics", write_amazon(tmp_path))


def _ali(tmp_path: Path) -> EventLog:
    return open_log("ali-display-ads", write_ali(tmp_path))


MAKE: dict[str, Callable[[Path], EventLog]] = {
    "ml-1m": _made_up,
    "amazon-electronics": _amazon,
    "ali-display-ads": _ali,
    "amazon-electronics, real": lambda _: _real("amazon-electronics"),
    "ali-display-ads, real": lambda _: _real("ali-display-ads"),
}


@pytest.fixture(params=MAKE)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> EventLog:
    return MAKE[request.param](tmp_path)


def test_events_are_sound_and_in_order(log: EventLog) -> None:
    events = list(log.events())
    assert len(events) == log.count
    assert (events[0].ts, events[-1].ts) == log.span
    assert all(a.ts <= b.ts for a, b in pairwise(events))
    for event in events:
        check_event(event, record_ms=event.ts, max_ahead_ms=0)
    shown: dict[str, Impression] = {}
    clicks = set()
    for event in events:
        if isinstance(event, Impression):
            assert event.request_id not in shown
            shown[event.request_id] = event
        else:
            assert event.event_id not in clicks
            clicks.add(event.event_id)
            cause = shown[event.request_id or ""]
            assert (event.user_id, event.item_id) == (cause.user_id, cause.item_id)
            assert 0 <= event.ts - cause.ts <= log.attribution_ms


def test_a_number_is_a_position_to_resume_at(log: EventLog) -> None:
    events = list(log.events())
    for start in {0, 1, 2, 3, len(events) // 2, len(events) - 1, len(events)}:
        assert list(log.events(start, start + 3)) == events[start : start + 3]
    assert list(log.events(len(events) // 2)) == events[len(events) // 2 :]


def test_index_at_finds_the_first_event_of_a_time(log: EventLog) -> None:
    times = [event.ts for event in log.events()]
    for ts in {0, times[0], times[0] + 1, times[len(times) // 2], times[-1], times[-1] + 1}:
        expected = next((i for i, value in enumerate(times) if value >= ts), log.count)
        assert log.index_at(ts) == expected


def test_opening_again_gives_the_same(
    log: EventLog, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    again = MAKE[request.node.callspec.params["log"]](tmp_path)
    for one, other in ((log.events(), again.events()), (log.items(), again.items())):
        assert list(one) == list(other)
    assert list(log.users()) == list(again.users())


def test_its_features_can_be_computed(log: EventLog) -> None:
    declared = declaration(log.declaration)
    arrays = load(log, declared)
    impressions = sum(isinstance(event, Impression) for event in log.events())
    assert len(arrays) == impressions
    assert arrays.labels.sum() == log.count - impressions, "every click finds its impression"
    live = LogRows(declared, arrays)
    columns = live.columns(np.arange(len(live)))
    assert set(columns) == {field.name for field in model_spec(declared).fields}
    for dense in declared.dense:
        assert np.isfinite(np.asarray(columns[dense.name])).all()
    first = live.ts == live.ts[0]
    assert np.asarray(columns["user_cold"])[first].all(), "rows of one moment know no other"


def test_its_job_can_be_rendered(log: EventLog, tmp_path: Path) -> None:
    declared = declaration(log.declaration)
    text = render_job(declared, Settings(state=tmp_path)).text
    for feature in declared.streaming:
        assert feature.name in text


def test_readers_are_called_what_they_say() -> None:
    assert {name.split(",")[0] for name in MAKE} | {"ml-100k"} == READERS.keys()


# few users, items and seconds, so that rows often tie, and often are the same
ROWS = st.lists(
    st.tuples(
        st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.booleans(), st.integers(0, 1)
    ),
    min_size=1,
    max_size=30,
)


def _outcomes(rows: list[tuple[int, int, int, bool, int]]) -> OutcomeLog:
    users, items, times, clicked, places = (np.array(column) for column in zip(*rows, strict=True))
    return OutcomeLog(
        Coded(users.astype(np.int32), ["a", "a-1", "b"]),
        Coded(items.astype(np.int32), ["007", "7", "x"]),
        times.astype(np.int64) + 10**9,
        clicked.astype(np.bool_),
        ("place", Coded(places.astype(np.int32), ["top", "side"])),
    )


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(
    rows: list[tuple[int, int, int, bool, int]], chance: random.Random
) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert list(_outcomes(rows).events()) == list(_outcomes(shuffled).events())


@given(ROWS, st.integers(0, 70), st.integers(0, 70))
def test_any_part_can_be_read(
    rows: list[tuple[int, int, int, bool, int]], start: int, stop: int
) -> None:
    log = _outcomes(rows)
    events = list(log.events())
    assert list(log.events(start, stop)) == events[start:stop]
    assert len(events) == log.count == len(rows) + sum(row[3] for row in rows)
    requests = [event.request_id for event in events if isinstance(event, Impression)]
    assert len(set(requests)) == len(rows)
    for before, event in pairwise(events):
        if isinstance(event, Click):
            assert isinstance(before, Impression)
            assert before.request_id == event.request_id == event.event_id


def test_the_same_row_thrice_is_three_events() -> None:
    log = _outcomes([(1, 0, 0, False, 0)] * 3)
    assert [event.request_id for event in log.events() if isinstance(event, Impression)] == [
        "a-1-1000000000-007",
        "a-1-1000000000-007.2",
        "a-1-1000000000-007.3",
    ]
    assert msgspec.to_builtins(next(log.events()))["context"] == {"place": "top"}


def test_a_log_without_rows_is_refused() -> None:
    nothing = Coded(np.zeros(0, np.int32), [])
    with pytest.raises(LogFileError, match="holds no rows"):
        OutcomeLog(nothing, nothing, np.zeros(0, np.int64), np.zeros(0, np.bool_))
