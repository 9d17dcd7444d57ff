"""Who gets a slot of the table, who loses it, and that a table is what it was shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inttower.core.ids import UNKNOWN, IdTable
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.errors import SpecError
from inttower.models.two_tower import TwoTower, TwoTowerConfig

Toy = Callable[..., tuple[dict[str, Any], Any]]

batches = st.lists(st.lists(st.sampled_from("abcdefghij"), max_size=6), max_size=30)
limits = st.integers(1, 8)
admissions = st.integers(1, 4)
expiries = st.none() | st.integers(1, 40)


def test_an_id_has_its_slot_from_its_nth_sighting_on() -> None:
    table = IdTable(admit_after=3)
    assert table.admit(["a", "b", "a"]).admitted.tolist() == []
    assert table.slots(["a"]).tolist() == [UNKNOWN]
    assert table.admit(["a"]).admitted.tolist() == [1]
    assert table.slots(["a", "b"]).tolist() == [1, UNKNOWN]
    assert table.pending == 1
    # sightings of one call count together
    assert table.admit(["c", "c", "c"]).admitted.tolist() == [2]


def test_an_id_that_is_not_seen_for_long_goes_and_its_slot_is_given_on() -> None:
    table = IdTable(expire_after=32)
    table.admit(["old", "kept"])
    for _ in range(20):
        table.admit(["kept", "other"])
    assert "old" not in table
    assert {"kept", "other"} <= set(table.ids())
    assert table.slots(["old"]).tolist() == [UNKNOWN]
    assert table.admit(["new"]).admitted.tolist() == [1]


def test_within_the_time_nobody_goes() -> None:
    table = IdTable(expire_after=32)
    table.admit(["old"])
    for _ in range(31):
        assert not len(table.admit(["other"]).expired)
    assert "old" in table


@given(batches, limits, admissions, expiries)
def test_the_table_keeps_its_bounds_and_its_slots(
    shown: list[list[str]], limit: int, admit_after: int, expire_after: int | None
) -> None:
    table = IdTable(limit, admit_after, expire_after)
    sightings: dict[str, int] = {}
    for texts in shown:
        before = dict(zip(table.ids(), table.slots(table.ids()).tolist(), strict=True))
        change = table.admit(texts)
        for text in texts:
            sightings[text] = sightings.get(text, 0) + 1
        after = dict(zip(table.ids(), table.slots(table.ids()).tolist(), strict=True))
        assert len(after) <= limit
        assert table.pending <= limit
        assert len(set(after.values())) == len(after)
        assert UNKNOWN not in after.values()
        assert all(slot < table.slots_used <= limit + 1 for slot in after.values())
        # who stays keeps the slot, and what changed was told
        assert all(after[t] == before[t] for t in after.keys() & before.keys())
        new = {after[t] for t in after.keys() - before.keys()}
        assert new == set(change.admitted.tolist())
        gone = {before[t] for t in before.keys() - after.keys()}
        assert gone == set(change.expired.tolist())
        assert all(sightings[t] >= admit_after for t in after)
        assert not (gone & {before[t] for t in texts if t in before})


@given(batches, batches, limits, admissions, expiries)
def test_saved_and_loaded_it_goes_on_as_if_nothing_had_been(
    first: list[list[str]],
    then: list[list[str]],
    limit: int,
    admit_after: int,
    expire_after: int | None,
) -> None:
    one, other = (IdTable(limit, admit_after, expire_after) for _ in range(2))
    for texts in first:
        one.admit(texts)
    other.load_state(*one.state())
    for texts in then:
        change, same = one.admit(texts), other.admit(texts)
        assert change.admitted.tolist() == same.admitted.tolist()
        assert change.expired.tolist() == same.expired.tolist()
    (data, seen), (again, same_seen) = one.state(), other.state()
    assert (data, seen.tolist()) == (again, same_seen.tolist())


@pytest.mark.parametrize("options", [{"limit": 0}, {"admit_after": 0}, {"expire_after": 0}])
def test_bounds_below_one_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="at least 1"):
        IdTable(**options)


def test_the_warm_up_teaches_the_row_of_the_unknown(spec: FeatureSpec, toy: Toy) -> None:
    columns, labels = toy(400)
    moved = {}
    for dropout in (0.0, 0.3):
        training = Training(id_dropout=dropout, epochs=1, batch_size=64)
        model = TwoTower(spec, TwoTowerConfig(width=4, hidden=(8,)), training=training)
        batch = model.encode(columns, admit=True)
        assert model.table is not None
        row = np.array([model.table.unknown_row("user_id")])
        before = model.table.values(row)
        model.fit(batch, labels)
        moved[dropout] = float(np.abs(model.table.values(row) - before).max())
    assert moved[0.0] == 0
    assert moved[0.3] > 1e-3
