"""The user state: what its inputs may know, and that it is saved whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inttower.core.spec import FeatureSpec, Field
from inttower.errors import StateError
from inttower.models.dots import ITEM_FACTORS, state_dots
from inttower.state import user_state
from inttower.state.factors import FactorConfig, Factors, fit_factors
from inttower.state.user_state import UserState, UserStateConfig

SPEC = FeatureSpec(
    (
        Field("user_id", "user", "sparse", is_id=True),
        Field("taste", "user", "sparse"),
        Field("item_id", "item", "sparse", is_id=True),
        Field("genres", "item", "multi"),
    )
)
CONFIG = UserStateConfig(factors=FactorConfig(size=4, iterations=4), window_ms=50)
MEAN = "user_state_medium"


def world(n: int = 900) -> tuple[dict[str, Any], Any, Any, Any]:
    """Columns, impression times with ties, closing times in order, labels."""
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, 15, n), rng.integers(0, 20, n)
    ts = np.sort(rng.integers(0, 3 * n, n))
    columns = {
        "user_id": [f"u{k}" for k in user],
        "taste": ["even" if k % 2 else "odd" for k in user],
        "item_id": [f"i{k}" for k in item],
        "genres": [[f"g{k % 2}"] for k in item],
    }
    return (
        columns,
        ts,
        ts + 1,
        (rng.random(n) < np.where(user % 2 == item % 2, 0.9, 0.2)).astype(int),
    )


def part(columns: dict[str, Any], index: slice) -> dict[str, Any]:
    return {name: values[index] for name, values in columns.items()}


def warmed(labels: Any, until: int = 600) -> tuple[UserState, dict[str, Any]]:
    columns, ts, closed, _ = world()
    state = UserState(SPEC, CONFIG)
    some = slice(0, until)
    state.collect(part(columns, some), ts[some], closed[some], labels[some])
    return state, state.fit()


def test_beliefs_tell_who_likes_what() -> None:
    columns, ts, closed, labels = world()
    state, _ = warmed(labels)
    rest = slice(600, 900)
    state.learn(part(columns, rest), closed[rest], labels[rest])
    found = state.inputs(part(columns, rest), ts[rest])
    logit = (found[MEAN] * found[ITEM_FACTORS]).sum(1)
    assert logit[labels[rest] == 1].mean() > logit[labels[rest] == 0].mean() + 1
    assert (state.variances("u1", part(columns, slice(0, 5))) > 0).all()


def test_later_labels_change_no_input_of_before() -> None:
    columns, ts, closed, labels = world()
    cut = 750
    turned = np.where(np.arange(900) < cut, labels, 1 - labels)
    found = []
    for truth in (labels, turned):
        state, _ = warmed(truth)
        rows = []
        for start in range(600, 900, 20):  # the cut lies within a batch
            some = slice(start, start + 20)
            state.learn(part(columns, some), closed[some], truth[some])
            rows.append(state.inputs(part(columns, some), ts[some])[MEAN])
        found.append(np.concatenate(rows))
    before = ts[600:] <= ts[cut]
    np.testing.assert_array_equal(found[0][before], found[1][before])
    assert (found[0][~before] != found[1][~before]).any()


def test_rows_of_the_warm_up_get_factors_that_never_saw_their_user() -> None:
    columns, _, _, labels = world()
    mine = np.array(columns["user_id"][:600]) == columns["user_id"][0]
    changed = labels.copy()
    changed[:600][mine] = 1 - changed[:600][mine]
    one, other = warmed(labels)[1], warmed(changed)[1]
    # rotated onto a full fit that did see it: the lengths stay
    lengths = [np.linalg.norm(found[ITEM_FACTORS][mine], axis=1) for found in (one, other)]
    np.testing.assert_allclose(lengths[0], lengths[1], rtol=1e-5)


def test_saved_and_loaded_it_goes_on_to_the_same_bytes() -> None:
    columns, _, closed, labels = world()
    state, _ = warmed(labels)
    again = UserState(SPEC, CONFIG)
    again.load_state(state.state())
    for one in (state, again):
        one.learn(part(columns, slice(600, 900)), closed[600:], labels[600:])
    saved, loaded = state.state(), again.state()
    assert saved.keys() == loaded.keys()
    assert all(np.asarray(saved[k]).tobytes() == np.asarray(loaded[k]).tobytes() for k in saved)


def test_what_is_forgotten_is_as_before_any_outcome() -> None:
    columns, _, closed, labels = world()
    state, _ = warmed(labels)
    some = part(columns, slice(600, 620))
    state.learn(some, closed[600:620], labels[600:620])
    strangers = {**some, "user_id": ["nobody"] * 20}
    long_ago = np.zeros(20, np.int64)
    np.testing.assert_array_equal(
        state.inputs(some, long_ago)[MEAN], state.inputs(strangers, long_ago)[MEAN]
    )


def test_a_fit_of_nothing_says_so_and_new_items_are_foretold() -> None:
    with pytest.raises(StateError, match="call collect"):
        UserState(SPEC, CONFIG).fit()
    state, _ = warmed(world()[3])
    new: dict[str, Any] = {"item_id": ["new", "other"], "genres": [["g0"], ["g1"]]}
    vectors = state.item_inputs(new)[ITEM_FACTORS]
    assert np.abs(vectors[0] - vectors[1]).max() > 0
    assert [d.first for d in state_dots(FeatureSpec((*SPEC.fields, *state.fields)))] == [1.0]


def test_folds_side_by_side_give_the_same_bytes() -> None:
    columns, ts, closed, labels = world()
    found = []
    for threads in (1, 3):
        state = UserState(SPEC, CONFIG)
        state.collect(columns, ts, closed, labels)
        found.append((state.fit(threads), state.state()))
    (one, left), (other, right) = found
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert all(np.asarray(left[k]).tobytes() == np.asarray(right[k]).tobytes() for k in left)


def test_the_factors_of_a_fold_are_turned_onto_those_of_the_full_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits: list[Factors] = []
    turned_onto: list[Factors | None] = []

    def recorded(*args: Any, before: Factors | None = None, **options: Any) -> Factors:
        # from an equal start both end close to each other: only the argument tells
        turned_onto.append(before)
        fits.append(fit_factors(*args, before=before, **options))
        return fits[-1]

    monkeypatch.setattr(user_state, "fit_factors", recorded)
    warmed(world()[3])
    assert len(fits) == 1 + CONFIG.folds
    assert turned_onto[0] is None
    assert all(before is fits[0] for before in turned_onto[1:])
