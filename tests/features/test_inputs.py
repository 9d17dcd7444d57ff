"""Model inputs: the same bits in a batch and alone, and the numbers that the declaration means."""

from __future__ import annotations

import dataclasses
import math
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.catalogue import Catalogue
from features.declaration import Declaration, Dense, Streaming
from features.logs.movielens_features import MOVIELENS
from features.model_inputs import (
    Columns,
    RawRows,
    getter,
    item_columns,
    model_spec,
    never_seen,
    user_columns,
)
from features.samples import features_type
from settings.errors import ConfigurationError

_NOW = 978_300_760_000

_counts = st.integers(0, 10**7)
_times = st.one_of(st.just(0), st.integers(_NOW - 10**10, _NOW + 10_000))
_users = st.tuples(
    _counts,
    _counts,
    st.floats(0, 1e7),
    _times,
    _times,
    st.lists(st.text(), max_size=16),
    _times,
    _counts,
    _counts,
)
_items = st.tuples(_counts, _counts, _times, _times)


def _catalogue() -> Catalogue:
    catalogue = Catalogue(MOVIELENS)
    catalogue.apply(
        "user", b"u", b'{"id":"u","attributes":{"gender":"F","age":"25","occupation":"3"}}'
    )
    catalogue.apply(
        "item", b"i", b'{"id":"i","attributes":{"genres":["Drama","War"],"decade":"1990"}}'
    )
    return catalogue


def _same(batch: Columns, row: int, single: Columns) -> None:
    assert batch.keys() == single.keys()
    for name, column in batch.items():
        alone = single[name]
        if isinstance(column, np.ndarray):
            assert isinstance(alone, np.ndarray)
            assert column.dtype == alone.dtype == np.float32
            assert column[row].tobytes() == alone[0].tobytes(), name
        else:
            assert column[row] == alone[0], name


@settings(max_examples=60, deadline=None)
@given(
    users=st.lists(_users, min_size=1, max_size=40),
    items=st.lists(_items, min_size=1, max_size=40),
    now=st.integers(_NOW - 10**9, _NOW + 10**9),
)
def test_a_batch_and_a_row_alone_give_the_same_bits(
    users: list[Any], items: list[Any], now: int
) -> None:
    catalogue = _catalogue()
    nows = np.arange(now, now + len(users), dtype=np.int64)
    batch = user_columns(MOVIELENS, RawRows(["u"] * len(users), users), catalogue, nows)
    for row, values in enumerate(users):
        raw = RawRows(["u"], [values])
        _same(batch, row, user_columns(MOVIELENS, raw, catalogue, nows[row : row + 1]))
    batch = item_columns(MOVIELENS, RawRows(["i"] * len(items), items), catalogue)
    for row, values in enumerate(items):
        _same(batch, row, item_columns(MOVIELENS, RawRows(["i"], [values]), catalogue))
    for column in batch.values():
        if isinstance(column, np.ndarray):
            assert np.isfinite(column).all()


def _user(sitting_since: int) -> tuple[Any, ...]:
    """A user whose last impression and click were so long ago, ms; then 4 were shown, 1 clicked."""
    last = _NOW - sitting_since
    return (9, 6, 7.5, _NOW - 90_000, last, ("b", "a"), last, 4, 1)


def test_the_numbers_are_what_the_declaration_says() -> None:
    raw = RawRows(["u"], [_user(sitting_since=30_000)])
    columns = user_columns(MOVIELENS, raw, _catalogue(), np.array([_NOW]))
    expected = {
        "user_log_impressions": math.log1p(9),
        "user_logit": math.log((6 + 5 * 0.78) / (3 + 5 * 0.22)),
        "user_residual": (6 - 7.5) / 14,
        "user_gap": math.log1p(30),
        "user_age": math.log1p(90),
        "user_cold": 0.0,
        "user_sitting_log_impressions": math.log1p(4),
        "user_sitting_logit": math.log((1 + 5 * 0.78) / (3 + 5 * 0.22)),
    }
    for name, value in expected.items():
        column = columns[name]
        assert isinstance(column, np.ndarray)
        assert column[0] == pytest.approx(value, rel=1e-6), name
    texts = {name: columns[name] for name in columns if name not in expected}
    assert texts == {
        "user_id": ["u"],
        "gender": ["F"],
        "age": ["25"],
        "occupation": ["3"],
        "user_liked": [("b", "a")],
    }


def test_who_was_never_seen_is_cold_and_finite() -> None:
    raw = RawRows.of(MOVIELENS, "user", ["nobody"], [None])
    columns = user_columns(MOVIELENS, raw, _catalogue(), np.array([_NOW]))
    assert columns["user_cold"] == [1.0]
    assert columns["user_gap"] == [0.0]
    assert columns["user_liked"] == [()]
    assert columns["gender"] == [""]
    items = item_columns(MOVIELENS, RawRows.of(MOVIELENS, "item", ["new"], [None]), _catalogue())
    assert items["item_cold"] == [1.0]
    assert items["genres"] == [()]


def test_every_field_of_the_spec_has_a_column_and_no_other_is_made() -> None:
    spec = model_spec(MOVIELENS)
    user = user_columns(
        MOVIELENS, RawRows.of(MOVIELENS, "user", ["u"], [None]), _catalogue(), np.array([_NOW])
    )
    item = item_columns(MOVIELENS, RawRows.of(MOVIELENS, "item", ["i"], [None]), _catalogue())
    assert list(user) == [f.name for f in spec.of_side("user")]
    assert list(item) == [f.name for f in spec.of_side("item")]
    assert spec.field("user_liked").of == "item_id"
    assert not {"item_last_ts", "item_first_ts"} & {f.name for f in spec.fields}


def test_values_come_out_of_a_sample_in_the_declared_order() -> None:
    struct = features_type(MOVIELENS)(*range(13))
    assert getter(MOVIELENS, "user")(struct) == (0, 1, 2, 3, 4, 5, 6, 7, 8)
    assert getter(MOVIELENS, "item")(struct) == (9, 10, 11, 12)
    one = dataclasses.replace(
        MOVIELENS, streaming=MOVIELENS.streaming[:1], dense=(), statics=MOVIELENS.statics
    )
    assert getter(one, "user")(SimpleNamespace(user_impressions=3)) == (3,)
    assert never_seen(one, "user") == (0,)


def test_a_time_gap_of_an_item_is_refused() -> None:
    gap = dataclasses.replace(MOVIELENS, dense=(Dense("gap", "log_gap", ("item_last_ts",)),))
    with pytest.raises(ConfigurationError, match="take log_gap off items"):
        item_columns(gap, RawRows.of(gap, "item", ["i"], [None]), _catalogue())


def test_a_window_that_has_passed_since_the_row_was_written_is_empty() -> None:
    minutes = 60_000
    # an event counts a millisecond after itself, and the window holds both its ends
    raw = RawRows(["u"] * 2, [_user(10 * minutes + 1), _user(10 * minutes + 2)])
    columns = user_columns(MOVIELENS, raw, _catalogue(), np.array([_NOW, _NOW]))
    still, passed = columns["user_sitting_log_impressions"]
    assert still == pytest.approx(math.log1p(4))
    assert passed == 0
    assert columns["user_sitting_logit"][1] == pytest.approx(math.log(0.78 / 0.22))
    assert columns["user_log_impressions"][1] == pytest.approx(math.log1p(9))


def test_each_window_ends_with_its_own_kind_of_event() -> None:
    values = list(_user(sitting_since=60_000))
    values[6] = _NOW - 11 * 60_000  # the last click
    columns = user_columns(
        MOVIELENS, RawRows(["u"], [tuple(values)]), _catalogue(), np.array([_NOW])
    )
    assert columns["user_sitting_log_impressions"][0] == pytest.approx(math.log1p(4))
    assert columns["user_sitting_logit"][0] == pytest.approx(math.log(5 * 0.78 / (4 + 5 * 0.22)))


def test_a_window_that_nobody_could_tell_the_end_of_is_refused() -> None:
    def declared(*streaming: Streaming) -> Declaration:
        counted = Dense("n", "log_count", (streaming[0].name,))
        return dataclasses.replace(MOVIELENS, streaming=streaming, dense=(counted,))

    shown = Streaming("shown", "user", "impression", "count", window_ms=5)
    clicked = Streaming("last_click", "user", "click", "last_ts")
    with pytest.raises(ConfigurationError, match="declare the last_ts of the same impressions"):
        user_columns(
            log := declared(shown, clicked),
            RawRows.of(log, "user", ["u"], [None]),
            _catalogue(),
            np.array([_NOW]),
        )
    items = declared(Streaming("shown", "item", "impression", "count", window_ms=5))
    with pytest.raises(ConfigurationError, match="feed windows of users to the towers only"):
        item_columns(items, RawRows.of(items, "item", ["i"], [None]), _catalogue())


def test_a_batch_is_fast_enough_for_the_stream() -> None:
    """200,000 rows/s where nothing else runs; a fifth of it is asked for on a busy machine."""
    catalogue = _catalogue()
    size = 512
    users = RawRows(["u"] * size, [_user(sitting_since=0)] * size)
    items = RawRows(["i"] * size, [(9, 6, _NOW, _NOW)] * size)
    now = np.full(size, _NOW)
    best = math.inf
    for _ in range(10):
        started = time.perf_counter()
        user_columns(MOVIELENS, users, catalogue, now)
        item_columns(MOVIELENS, items, catalogue)
        best = min(best, time.perf_counter() - started)
    assert size / best > 40_000
