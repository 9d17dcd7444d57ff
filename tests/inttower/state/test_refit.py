"""Refits of the user state in a stream: what they know, what they keep, and that they are saved."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inttower.core.batch import SIDES
from inttower.core.spec import FeatureSpec, Field
from inttower.errors import SpecError
from inttower.models.dots import ITEM_BIAS, ITEM_FACTORS
from inttower.state.attributes import Attributes
from inttower.state.factors import FactorConfig
from inttower.state.history import OutcomeHistory
from inttower.state.user_state import UserState, UserStateConfig

SPEC = FeatureSpec(
    (
        Field("user_id", "user", "sparse", is_id=True),
        Field("taste", "user", "sparse"),
        Field("item_id", "item", "sparse", is_id=True),
        Field("genres", "item", "multi"),
    )
)
WINDOW = 40
CONFIG = UserStateConfig(
    factors=FactorConfig(size=4, iterations=6), window_ms=WINDOW, refit_every=150, remember=2000
)
MEAN = "user_state_medium"
WARM, ALL = 600, 1400


def world() -> tuple[dict[str, Any], Any, Any, Any]:
    """Rows in the order of closing, up to a window behind their impressions; new items later."""
    rng = np.random.default_rng(3)
    user = rng.integers(0, 20, ALL)
    item = rng.integers(0, np.where(np.arange(ALL) < WARM + WINDOW, 20, 30))
    ts = np.sort(rng.integers(0, 2 * ALL, ALL))
    closed = ts + rng.integers(1, WINDOW, ALL)
    likes = rng.random(ALL) < np.where(user % 2 == item % 2, 0.9, 0.15)
    order = np.argsort(closed, kind="stable")
    columns = {
        "user_id": [f"u{k}" for k in user[order]],
        "taste": ["even" if k % 4 < 2 else "odd" for k in user[order]],
        "item_id": [f"i{k}" for k in item[order]],
        # says nothing of who likes it: a new item's vector has to come from its outcomes
        "genres": [[f"g{k % 3}"] for k in item[order]],
    }
    return columns, ts[order], closed[order], likes[order].astype(int)


def part(columns: dict[str, Any], index: slice) -> dict[str, Any]:
    return {name: values[index] for name, values in columns.items()}


def streamed(
    labels: Any, config: UserStateConfig = CONFIG, until: int = ALL
) -> tuple[UserState, dict[str, Any]]:
    """A state behind its stream, and the inputs that its rows were given."""
    columns, ts, closed, _ = world()
    state = UserState(SPEC, config)
    some = slice(0, WARM)
    state.collect(part(columns, some), ts[some], closed[some], labels[some])
    state.fit()
    found: list[dict[str, Any]] = []
    for start in range(WARM, until, 20):
        some = slice(start, start + 20)
        state.learn(part(columns, some), closed[some], labels[some])
        found.append(dict(state.inputs(part(columns, some), ts[some])))
    return state, {name: np.concatenate([f[name] for f in found]) for name in found[0]}


def test_an_item_of_the_stream_gets_factors_of_its_own() -> None:
    labels = world()[3]
    new: dict[str, Any] = {"item_id": [f"i{k}" for k in range(20, 30)], "genres": [["g0"]] * 10}
    without, _ = streamed(labels, replace(CONFIG, refit_every=None))
    with_, _ = streamed(labels)
    # in batches of 20 each 160th is the first that is due; the last one waits for the next batch
    assert (without.fits, with_.fits) == (1, 5)
    # one attribute, one vector; until a refit tells the even items from the odd ones
    assert np.ptp(without.item_inputs(new)[ITEM_FACTORS], axis=0).max() == 0
    vectors = with_.item_inputs(new)[ITEM_FACTORS]
    even, odd = vectors[::2].mean(0), vectors[1::2].mean(0)
    assert (vectors[::2] @ even > vectors[::2] @ odd).all()
    assert (vectors[1::2] @ odd > vectors[1::2] @ even).all()


@pytest.mark.parametrize("cut", [WARM + 150, WARM + 155, WARM + 310])
def test_labels_known_later_change_no_input_of_before(cut: int) -> None:
    _, ts, closed, labels = world()
    rng = np.random.default_rng(0)
    known = closed < closed[cut]
    turned = np.where(known, labels, rng.permutation(labels))
    (_, one), (_, other) = streamed(labels), streamed(turned)
    before = ts[WARM:] < closed[cut]
    assert np.flatnonzero(before).max() > cut - WARM + 5, "no row is open across the cut"
    for name in one:
        np.testing.assert_array_equal(one[name][before], other[name][before], err_msg=name)
    assert (one[MEAN][~before] != other[MEAN][~before]).any()
    assert (one[ITEM_BIAS][~before] != other[ITEM_BIAS][~before]).any()


def test_a_refit_is_turned_onto_the_factors_before_it() -> None:
    columns, _, closed, labels = world()
    items = part(columns, slice(0, 40))
    before, _ = streamed(labels, until=WARM + 160)
    # from another start a fit ends elsewhere on its orbit
    after = UserState(SPEC, replace(CONFIG, factors=replace(CONFIG.factors, seed=5)))
    after.load_state(before.state())
    some = slice(WARM + 160, WARM + 180)
    after.learn(part(columns, some), closed[some], labels[some])
    assert (before.fits, after.fits) == (1, 2)
    v, w = (s.item_inputs(items)[ITEM_FACTORS] for s in (before, after))
    cosine = (v * w).sum(1) / np.linalg.norm(v, axis=1) / np.linalg.norm(w, axis=1)
    assert cosine.min() > 0.8


def test_saved_between_and_behind_refits_it_goes_on_to_the_same_bytes() -> None:
    columns, _, closed, labels = world()
    for until in (WARM + 160, WARM + 180, WARM + 400):
        state, _ = streamed(labels, until=until)
        again = UserState(SPEC, CONFIG)
        again.load_state(state.state())
        for one in (state, again):
            for start in range(until, ALL, 20):
                some = slice(start, start + 20)
                one.learn(part(columns, some), closed[some], labels[some])
        saved, loaded = state.state(), again.state()
        assert saved.keys() == loaded.keys()
        assert all(np.asarray(saved[k]).tobytes() == np.asarray(loaded[k]).tobytes() for k in saved)
        assert again.fits == state.fits > 2


def test_one_that_never_refits_can_stand_beside_one_that_does() -> None:
    columns, ts, _, labels = world()
    state, _ = streamed(labels, until=WARM + 400)
    still = UserState(SPEC, replace(CONFIG, refit_every=None))
    still.load_state(state.state())
    some = part(columns, slice(WARM + 400, WARM + 440))
    then = ts[WARM + 400 : WARM + 440]
    for name, values in state.inputs(some, then).items():
        np.testing.assert_array_equal(values, still.inputs(some, then)[name])
    assert not any(name.startswith("history.") for name in still.state())


def test_a_refit_of_more_than_is_remembered_is_refused() -> None:
    with pytest.raises(SpecError, match="between 1 and remember"):
        UserStateConfig(refit_every=11, remember=10)


ROWS = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.booleans()), max_size=30
)


@settings(deadline=None)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 30), max_size=4), kept=st.integers(1, 30))
def test_a_cut_history_is_that_of_its_newest_rows(
    rows: list[tuple[str, str, bool]], cuts: list[int], kept: int
) -> None:
    attributes = {side: Attributes(SPEC, side) for side in SIDES}

    def history(start: int, bounds: list[int]) -> OutcomeHistory:
        made = OutcomeHistory({"user": "user_id", "item": "item_id"})
        edges = sorted({start, len(rows), *(b for b in bounds if start < b < len(rows))})
        for one, other in pairwise(edges):
            some = rows[one:other]
            columns: Any = {
                "user_id": [u for u, _, _ in some],
                "taste": [u.upper() for u, _, _ in some],
                "item_id": [i for _, i, _ in some],
                "genres": [[i, "all"] for _, i, _ in some],
            }
            labels = np.array([y for _, _, y in some], np.int64)
            made.add(columns, np.arange(one, other), labels, attributes)
        return made

    def content(of: OutcomeHistory) -> list[object]:
        outcomes = of.outcomes()
        users, items = (list(of.entities[side].codes) for side in SIDES)
        return [
            [(users[u], of.entities["user"].values[u]) for u in outcomes.users],
            [(items[i], of.entities["item"].values[i]) for i in outcomes.items],
            outcomes.labels.tolist(),
            of.closed_ts().tolist(),
            sorted(users),
            sorted(items),
            len(of),
        ]

    cut = history(0, cuts)
    cut.keep_newest(kept)
    again = OutcomeHistory({"user": "user_id", "item": "item_id"})
    again.load_state(cut.state())
    expected = content(history(max(0, len(rows) - kept), []))
    assert content(cut) == expected
    assert content(again) == expected
