from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from features.logs.movielens_features import MOVIELENS
from features.samples import features_type
from trainer.learning.latest_rows import LatestRows


def features(count: int) -> msgspec.Struct:
    blank = {
        "user_impressions": 0,
        "user_clicks": 0,
        "user_expected": 0.25,
        "user_first_ts": 0,
        "user_last_ts": 0,
        "user_liked": (),
        "user_last_click_ts": 0,
        "user_sitting_impressions": 0,
        "user_sitting_clicks": 0,
        "item_impressions": count,
        "item_clicks": 1,
        "item_first_ts": 2,
        "item_last_ts": 3,
    }
    return features_type(MOVIELENS)(**blank)


def test_the_newest_event_time_wins_and_an_older_one_changes_nothing() -> None:
    rows = LatestRows(MOVIELENS, "item", limit=10)
    rows.update(["a", "a", "b"], [5, 4, 1], [features(1), features(2), features(3)])
    assert rows.raw(["a"]).values == [(1, 1, 2, 3)]
    rows.update(["a"], [5], [features(4)])
    assert rows.raw(["a", "c"]).values == [(4, 1, 2, 3), (0, 0, 0, 0)]
    assert rows.times(["a", "c"]) == [5, 0]
    assert rows.ids() == ["a", "b"]


@given(st.lists(st.tuples(st.text(max_size=2), st.integers(0, 50)), max_size=60))
def test_the_oldest_go_first_and_the_size_is_bounded(events: list[tuple[str, int]]) -> None:
    rows = LatestRows(MOVIELENS, "item", limit=10)
    newest: dict[str, int] = {}
    for id_, ts in events:
        rows.update([id_], [ts], [features(ts)])
        newest[id_] = max(ts, newest.get(id_, ts))
    assert len(rows) <= 10
    if len(newest) <= 10:
        assert dict(zip(rows.ids(), rows.times(rows.ids()), strict=True)) == newest


def test_rows_survive_the_checkpoint_as_they_were() -> None:
    rows = LatestRows(MOVIELENS, "user", limit=10)
    struct = msgspec.structs.replace(features(1), user_liked=("é", "b"), user_expected=0.1)
    rows.update(["u", "ü"], [5, 6], [struct, features(2)])
    again = LatestRows(MOVIELENS, "user", limit=10)
    again.load_state(rows.state())
    assert again.state() == rows.state()
    (values,) = again.raw(["u"]).values
    assert [list(v) if isinstance(v, tuple | list) else v for v in values] == [
        *(0, 0, 0.1, 0, 0),
        ["é", "b"],
        *(0, 0, 0),
    ]
