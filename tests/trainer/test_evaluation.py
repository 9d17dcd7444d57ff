"""Figures against scikit-learn, and what the ring keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from inttower.evaluate import figures
from trainer.learning.evaluation import Evaluation, user_code

# few distinct logits, so that ties are common
cases = st.lists(
    st.tuples(st.integers(-3, 3), st.integers(0, 1), st.integers(0, 4)), min_size=1, max_size=60
)


@given(cases)
def test_figures_equal_those_of_scikit_learn(rows: list[tuple[int, int, int]]) -> None:
    z = np.array([r[0] for r in rows], np.float32)
    y = np.array([r[1] for r in rows], np.uint8)
    users = np.array([r[2] for r in rows], np.uint64)
    found = figures(z, y, users)
    p = 1 / (1 + np.exp(-z.astype(np.float64)))
    assert found.logloss == pytest.approx(log_loss(y, p, labels=[0, 1]))
    both = 0 < y.sum() < len(y)
    assert found.auc == (pytest.approx(roc_auc_score(y, z)) if both else None)
    assert found.calibration == (pytest.approx(p.sum() / y.sum()) if y.sum() else None)
    parts = [
        (roc_auc_score(y[of], z[of]), of.sum())
        for of in (users == u for u in np.unique(users))
        if 0 < y[of].sum() < of.sum()
    ]
    expected = np.average([a for a, _ in parts], weights=[n for _, n in parts]) if parts else None
    assert found.gauc == (pytest.approx(expected) if parts else None)


def test_no_rows_define_no_figures() -> None:
    empty = figures(np.zeros(0, np.float32), np.zeros(0, np.uint8), np.zeros(0, np.uint64))
    assert (empty.rows, empty.auc, empty.logloss, empty.calibration, empty.gauc) == (
        0,
        None,
        None,
        None,
        None,
    )


def test_extreme_logits_stay_finite() -> None:
    found = figures(
        np.array([500, -500], np.float32), np.array([0, 1], np.uint8), np.array([1, 1], np.uint64)
    )
    assert found.logloss == pytest.approx(500)


def fill(evaluation: Evaluation, start: int, end: int, size: int) -> None:
    for at in range(start, end, size):
        n = np.arange(at, min(at + size, end))
        logits = np.stack([n, -n], axis=1).astype(np.float32)
        users = np.array([user_code(f"u{i % 3}") for i in n], np.uint64)
        evaluation.record(logits, (n % 2).astype(np.uint8), users)


@given(
    capacity=st.integers(1, 50),
    end=st.integers(0, 140),
    size=st.integers(1, 70),
)
def test_the_ring_keeps_the_newest_rows_in_order(capacity: int, end: int, size: int) -> None:
    evaluation = Evaluation(("a", "b"), capacity, window=7)
    fill(evaluation, 0, end, size)
    state = evaluation.state()
    newest = np.arange(max(0, end - capacity), end)
    np.testing.assert_array_equal(state["logits"], np.stack([newest, -newest], axis=1))
    np.testing.assert_array_equal(state["labels"], newest % 2)
    np.testing.assert_array_equal(state["users"], [user_code(f"u{i % 3}") for i in newest])
    assert evaluation.recorded == end
    assert evaluation.over_all()["a"].rows == len(newest)
    assert evaluation.over_window()["b"].rows == min(7, len(newest))


@given(
    before=st.integers(0, 90),
    after=st.integers(0, 90),
    capacities=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_a_restored_ring_goes_on(before: int, after: int, capacities: tuple[int, int]) -> None:
    old, new = capacities
    one = Evaluation(("a", "b"), old, window=5)
    fill(one, 0, before, 8)
    other = Evaluation(("a", "b"), new, window=5)
    other.load_state(one.state())
    fill(other, before, before + after, 8)
    kept = min(new, min(old, before) + after)
    expected = np.arange(before + after - kept, before + after)
    np.testing.assert_array_equal(other.state()["logits"][:, 0], expected)
    assert other.recorded == before + after


@given(capacity=st.integers(1, 20), end=st.integers(1, 60), place=st.integers(0, 60))
def test_a_label_that_comes_late_replaces_the_one_that_was_recorded(
    capacity: int, end: int, place: int
) -> None:
    evaluation = Evaluation(("a", "b"), capacity, window=5)
    fill(evaluation, 0, end, 7)
    evaluation.relabel(place, 1 - place % 2)
    newest = np.arange(max(0, end - capacity), end)
    expected = np.where(newest == place, 1 - newest % 2, newest % 2)
    np.testing.assert_array_equal(evaluation.state()["labels"], expected)


def test_a_user_has_the_same_code_in_every_process() -> None:
    assert user_code("1") == 8518482412311870710
