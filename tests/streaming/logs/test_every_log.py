"""What every log must do, run over each shape made up here, and over real ones where they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bench.log_rows import LogRows
from features.declaration import Declaration
from features.generate import generated_declaration
from features.log_arrays import load
from features.model_inputs import model_spec
from features.sql import render_job
from settings.settings import Settings
from streaming.events import Click, Impression, check_event
from streaming.logs import EventLog, OwnLog, find_log
from streaming.logs.choose import SHIPPED, shipped_names
from streaming.logs.parse_log_file import read_log_file
from tests.streaming.logs.shapes import SHAPES, shipped
from tests.streaming.logs.small_logs import T, declare, outcomes

REAL = Path(__file__).parents[3] / ".." / "shared" / "data"
# of the impressions, the clicks and the labels as the readers gave them that these files replaced
SAMPLES = {
    "ml-1m": "5ce3d2bd446b2a87",
    "ml-100k": "c0ce5724ee2be5da",
    "amazon-electronics": "7ff478bff405e56e",
    "ali-display-ads": "71d24eecc0c892dc",
}
MAKE: dict[str, Callable[[Path], EventLog]] = {**SHAPES, **shipped()}


@pytest.fixture(params=MAKE)
def log(request: pytest.FixtureRequest, tmp_path: Path) -> EventLog:
    return MAKE[request.param](tmp_path)


def test_events_are_sound_and_in_order(log: EventLog) -> None:
    events = list(log.events())
    assert len(events) == log.count
    assert (events[0].ts, events[-1].ts) == log.span
    assert all(a.ts <= b.ts for a, b in pairwise(events))
    shown: dict[tuple[str, str], Impression] = {}
    actions = set()
    for event in events:
        check_event(event, record_ms=event.ts, max_ahead_ms=0)
        if isinstance(event, Impression):
            assert (event.request_id, event.item_id) not in shown
            shown[event.request_id, event.item_id] = event
        else:
            assert event.event_id not in actions
            actions.add(event.event_id)
            if event.request_id is not None:
                cause = shown[event.request_id, event.item_id]
                assert event.user_id == cause.user_id
                assert 0 <= event.ts - cause.ts <= log.attribution_ms
    for start in {0, 1, 2, len(events) // 2, len(events) - 1, len(events)}:
        assert list(log.events(start, start + 3)) == events[start : start + 3]
    assert list(log.events(len(events) // 2)) == events[len(events) // 2 :]
    times = [event.ts for event in events]
    for ts in {0, times[0], times[0] + 1, times[len(times) // 2], times[-1], times[-1] + 1}:
        expected = next((i for i, value in enumerate(times) if value >= ts), log.count)
        assert log.index_at(ts) == expected


def test_its_features_are_generated_and_the_job_renders(log: EventLog, tmp_path: Path) -> None:
    assert isinstance(log, OwnLog)
    declared = generated_declaration(log)
    text = render_job(declared, Settings(state=tmp_path)).text
    assert all(feature.name in text for feature in declared.streaming)
    again = msgspec.json.decode(msgspec.json.encode(declared), type=Declaration)
    assert again == declared, "the parts read what the launcher kept"
    rows = LogRows(declared, load(log, declared))
    assert len(rows) == log.summary.impressions
    columns = rows.columns(np.arange(len(rows)))
    spec = model_spec(declared)
    assert set(columns) == {field.name for field in spec.fields}
    for field in spec.fields:
        if field.kind == "dense":
            assert np.isfinite(np.asarray(columns[field.name])).all(), field.name
    positives = sum(log.summary.actions[kind] for kind in log.positives)
    assert rows.log.labels.sum() == min(positives, len(rows)) or log.name == "small"


def test_a_number_is_a_position_in_a_log_of_several_row_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streaming.logs.sorted_events._ROW_GROUP", 2048)
    rows = "".join(f"u{n % 7},i{n % 5},{n % 6},{T + n // 3}\n" for n in range(5_000))
    log = declare(tmp_path, "user,item,rating,time\n" + rows)
    events = list(log.events())
    assert len(events) == log.count > 5_000
    for start in (0, 2047, 2048, 2049, 4096, log.count - 1):
        assert list(log.events(start, start + 2100)) == events[start : start + 2100]
    for ts in (events[2048].ts, events[2049].ts, events[-1].ts, events[0].ts):
        assert log.index_at(ts) == next(i for i, e in enumerate(events) if e.ts >= ts)


@pytest.mark.parametrize("name", SAMPLES)
def test_real_samples_are_those_of_the_readers_that_went(name: str) -> None:
    folder = REAL / name
    if not folder.is_dir():
        pytest.skip(f"the real log {name} is not on this machine")
    log = find_log(name, folder)
    arrays = load(log, generated_declaration(log))
    found = hashlib.sha256()
    for happened in (arrays.impressions, arrays.clicks):
        for column in (happened.users, happened.items, happened.ts):
            found.update(np.ascontiguousarray(column).tobytes())
    found.update(arrays.labels.tobytes())
    found.update("\n".join([*arrays.user_ids, *arrays.item_ids]).encode())
    assert found.hexdigest()[:16] == SAMPLES[name]


def test_every_shipped_file_is_a_declaration_of_its_own_name() -> None:
    for path in SHIPPED.glob("*.toml"):
        assert path.stem in {read_log_file(path).name, f"{read_log_file(path).name}-recbole"}
    assert {"ml-100k", "ml-1m", "ebnerd", "globo", "kuairand", "rees46"} <= set(shipped_names())


# few users, items and seconds, so that rows often tie, and often are the same
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "a-1", "b"]),
        st.sampled_from(["007", "7", "x"]),
        st.integers(0, 3),
        st.booleans(),
        st.sampled_from(["top", "side"]),
    ),
    min_size=1,
    max_size=20,
)
Row = tuple[str, str, int, bool, str]


def _rows(folder: Path, rows: list[Row]) -> EventLog:
    lines = "".join(f"{u},{i},{int(c)},{T + t},{p}\n" for u, i, t, c, p in rows)
    return declare(folder, "user,item,clk,time,place\n" + lines, click="clk = 1", context=["place"])


@hypothesis_settings(max_examples=10, deadline=None)
@given(ROWS, st.integers(0, 50), st.integers(0, 50), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], start: int, stop: int, chance: object
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    log = _rows(folder, rows)
    events = list(log.events())
    assert list(log.events(start, stop)) == events[start:stop]
    assert sorted(outcomes(log)) == sorted((u, i, t, c) for u, i, t, c, _ in rows)
    shuffle = getattr(chance, "shuffle")  # noqa: B009 - hypothesis gives it no type
    shuffle(rows)
    (folder / "again").mkdir()
    assert list(_rows(folder / "again", rows).events()) == events
    for before, event in pairwise(events):
        if isinstance(event, Click):
            assert isinstance(before, Impression)
            assert before.request_id == event.request_id == event.event_id
    places = [msgspec.to_builtins(e).get("context") for e in events if isinstance(e, Impression)]
    assert sorted(str(p) for p in places) == sorted(str({"place": p}) for *_, p in rows)
