"""The base: counters read strictly before, filters that learn what there is and no more."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from inttower.base.base_filter import Actions, BaseConfig, BaseFilter, moments_of
from inttower.base.counter_inputs import Events
from inttower.base.input_kernels import ACTION_EVENT, SHOWN_EVENT
from inttower.base.logistic_filter import FilterAverage, FilterConfig
from inttower.core.contract import Columns
from inttower.core.spec import FeatureSpec, Field
from inttower.evaluate import auc, calibration, logloss

SPEC = FeatureSpec(
    (
        Field("user_id", "user", "sparse", is_id=True),
        Field("device", "user", "sparse"),
        Field("item_id", "item", "sparse", is_id=True),
        Field("genres", "item", "multi"),
    )
)
Floats = NDArray[np.float64]


class MadeUp:
    """A log of given probabilities: half a second between rows, actions come at once."""

    def __init__(self, count: int, logit: Callable[..., Floats], seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        users, items = rng.integers(0, 60, count), rng.integers(0, 40, count)
        device = users % 3
        self.p = 1 / (1 + np.exp(-logit(users, items, rng)))
        self.labels = (rng.random(count) < self.p).astype(np.uint8)
        self.ts = 1_000_000 + 500 * np.arange(count)
        self.columns: dict[str, Any] = {
            "user_id": [f"u{u}" for u in users],
            "device": [f"d{d}" for d in device],
            "item_id": [f"i{i}" for i in items],
            "genres": [[f"g{i % 5}"] if i % 7 else [f"g{i % 5}", "rare"] for i in items],
        }

    def part(self, rows: slice | NDArray[np.int64]) -> Columns:
        index = np.arange(len(self.ts))[rows]
        return {name: [values[i] for i in index] for name, values in self.columns.items()}

    def events(self, base: BaseFilter) -> tuple[Events, NDArray[np.uint8]]:
        """All of it in order, and the labels."""
        keys = base.plan.keys(self.columns)
        clicked = np.flatnonzero(self.labels)
        row = np.concatenate([np.arange(len(keys)), clicked])
        what = np.repeat([SHOWN_EVENT, ACTION_EVENT], [len(keys), len(clicked)]).astype(np.int32)
        ts = np.concatenate([self.ts, self.ts[clicked] + 1])
        order = np.lexsort((row, ts))
        numbers = np.zeros((len(row), 0), np.float32)
        events = Events(what[order], ts[order], keys[row[order]], numbers)
        return events, self.labels[row[order]]


def nothing(_users: NDArray[np.int64], items: NDArray[np.int64], _rng: object) -> Floats:
    return np.full(len(items), -3.0)


def stream(base: BaseFilter, log: MadeUp, size: int = 1) -> NDArray[np.float32]:
    """Predict, then learn, ``size`` rows of one moment at a time."""
    found = []
    for start in range(0, len(log.ts), size):
        part = slice(start, start + size)
        ts = np.full(len(log.ts[part]), log.ts[start])
        numbers = base.shown(log.part(part), ts)
        found.append(base.logits(numbers))
        clicked = start + np.flatnonzero(log.labels[part])
        if len(clicked):
            base.acted(Actions(log.part(clicked), ts[: len(clicked)] + 1))
        base.learn(numbers, log.labels[part])
        base.close(numbers)
    return np.concatenate(found)


def test_rows_of_one_moment_know_nothing_of_each_other() -> None:
    log = MadeUp(40, nothing)
    same = MadeUp(40, nothing)
    same.ts[:] = log.ts[0]
    base, events = BaseFilter(SPEC), []
    for made in (log, same):
        base = BaseFilter(SPEC)
        events.append(base.inputs.run(Events(
            np.zeros(40, np.int32), made.ts, base.plan.keys(made.columns),
            np.zeros((40, 0), np.float32),
        )))  # fmt: skip
    apart, together = events
    assert len(np.unique(apart, axis=0)) > 1
    assert len(np.unique(together, axis=0)) == 1


def test_an_action_counts_from_when_it_is_known_and_not_for_its_own_moment() -> None:
    log, base = MadeUp(2, nothing), BaseFilter(SPEC)
    row = log.part(slice(0, 1))
    before = base.score(row, 5000)
    base.acted(Actions(row, np.array([5000])))
    numbers = base.shown(row, np.array([5001]))
    assert not np.array_equal(base.rows(numbers)[0], base.inputs.read(
        base.plan.keys(log.part(slice(1, 2))), np.zeros((1, 0), np.float32), 5001)[0])  # fmt: skip
    assert before.shape == (1,)


def test_a_decayed_count_is_true_without_a_tick() -> None:
    base = BaseFilter(SPEC)
    row = MadeUp(1, nothing).part(slice(0, 1))
    for ts in (0, 60_000):
        base.shown(row, np.array([ts]))
    table = base.inputs.table
    half_lives = base.inputs.half_lives
    whole = 2 ** (-60_000 / half_lives) + 1
    np.testing.assert_allclose(table.values[0, 3:6], whole, rtol=1e-6)
    now = base.inputs.read(base.plan.keys(row), np.zeros((1, 0), np.float32), 60_000)
    later = base.inputs.read(base.plan.keys(row), np.zeros((1, 0), np.float32), 600_000)
    assert not np.array_equal(now, later)


def test_the_served_score_is_the_trainers() -> None:
    log, base = MadeUp(600, lambda u, i, _: (i % 5 - 2.0) * 0.7), BaseFilter(SPEC)
    stream(base, log)
    rows = log.part(slice(0, 50))
    served = base.score(rows, int(log.ts[-1]) + 10)
    numbers = base.shown(rows, np.full(50, log.ts[-1] + 10))
    np.testing.assert_array_equal(served, base.logits(numbers))


def test_the_filter_is_where_the_batch_fit_is() -> None:
    """Its mean after n rows against the maximum of the same posterior, found by Newton steps."""
    rng = np.random.default_rng(3)
    n, k, ridge = 4000, 6, 10.0
    x = rng.standard_normal((n, k)).astype(np.float32)
    x[:, 0] = 1
    true = np.array([-2.0, 1.0, -0.5, 0.0, 0.3, 0.8])
    y = (rng.random(n) < 1 / (1 + np.exp(-x @ true))).astype(np.float32)
    filters = FilterAverage([FilterConfig(np.arange(k), ridge)], k, -1.5)
    filters.learn(x, y, np.ones(n, np.float32), np.arange(n + 1))
    precision = np.full(k, ridge)
    precision[0] = 1.0
    mean = np.zeros(k)
    mean[0] = -1.5  # the rate that was expected
    w = mean.copy()
    for _ in range(20):
        p = 1 / (1 + np.exp(-x @ w))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag(precision)
        w -= np.linalg.solve(hessian, x.T @ (p - y) + precision * (w - mean))
    assert np.abs(filters.weights - w).max() < 0.03
    covariance = np.asarray(filters.state()["P0"])
    np.testing.assert_allclose(covariance.diagonal(), np.linalg.inv(hessian).diagonal(), rtol=0.15)
    np.testing.assert_array_equal(covariance, covariance.T)


def test_a_correction_moves_the_mean_to_where_the_true_label_would_have() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, 4)).astype(np.float32)
    x[:, 0] = 1
    y = (rng.random(500) < 0.2).astype(np.float32)
    weights, moments = np.ones(500, np.float32), np.arange(501)
    known, corrected = (FilterAverage([FilterConfig(np.arange(4), 10.0)], 4, -1.0) for _ in "ab")
    known.learn(x, y, weights, moments)
    late = y * (np.arange(500) % 2)
    corrected.learn(x, y - late, weights, moments)
    before = np.array(corrected.state()["P0"])
    wrong = np.abs(corrected.weights - known.weights).max()
    corrected.correct(x[late > 0], weights[late > 0])
    np.testing.assert_array_equal(before, corrected.state()["P0"])
    assert np.abs(corrected.weights - known.weights).max() < 0.25 * wrong


@pytest.mark.parametrize(
    ("learnt", "true"),
    [((0, 1.0), (1, 3.0)), ((1, 1.0), (0, 2.0)), ((0, 1.0), (0, 3.0)), ((0, 1.0), (1, 0.5))],
)
def test_a_correction_takes_back_what_was_learnt_of_another_label_or_weight(
    learnt: tuple[int, float], true: tuple[int, float]
) -> None:
    log = MadeUp(1_500, nothing)
    late = np.zeros(1_500, np.bool_)
    late[1_200::10] = True
    bases = []
    for label, weight in (true, learnt, learnt):
        base = BaseFilter(SPEC)
        bases.append(base)
        numbers = base.shown(log.part(slice(None)), log.ts)
        labels = np.where(late, label, np.arange(1_500) % 5 == 0).astype(np.uint8)
        base.learn(numbers, labels, np.where(late, weight, 1).astype(np.float32))
    known, wrong, corrected = bases
    ones = np.ones(int(late.sum()), np.float32)
    corrected.correct(
        np.flatnonzero(late), true[1] * ones, true[0] * ones, (learnt[0] * ones, learnt[1] * ones)
    )
    rows = np.flatnonzero(late)
    error = np.abs(wrong.logits(rows) - known.logits(rows)).mean()
    assert error > 0.02
    assert np.abs(corrected.logits(rows) - known.logits(rows)).mean() < 0.4 * error


def test_one_first_click_at_a_low_rate_does_not_throw_the_weights() -> None:
    filters = FilterAverage([FilterConfig(np.arange(150), 10.0)], 150, -7.0)
    x = np.ones((1, 150), np.float32)
    filters.learn(x, np.ones(1, np.float32), np.ones(1, np.float32), np.array([0, 1]))
    assert float(filters.logits(x)[0]) < 3.0


def test_saved_and_restored_it_goes_on_to_equal_bytes() -> None:
    log = MadeUp(900, lambda u, i, _: (i % 5 - 2.0) * 0.5)
    whole, half = BaseFilter(SPEC), BaseFilter(SPEC)
    parts = [MadeUp(900, lambda u, i, _: (i % 5 - 2.0) * 0.5) for _ in range(2)]
    for made, rows in zip(parts, (slice(0, 450), slice(450, 900)), strict=True):
        made.columns = {k: v[rows] for k, v in made.columns.items()}
        made.ts, made.labels = made.ts[rows], made.labels[rows]
    z = stream(whole, log)
    first = stream(half, parts[0])
    half.shown(parts[1].part(slice(0, 1)), parts[1].ts[:1])  # a row that stays open
    restored = BaseFilter(SPEC)
    restored.load_state(half.state())
    for name, value in half.state().items():
        np.testing.assert_array_equal(value, restored.state()[name], err_msg=name)
    np.testing.assert_array_equal(stream(half, parts[1]), stream(restored, parts[1]))
    np.testing.assert_array_equal(first, z[:450])
    assert whole.fits > 3  # scaling was derived on the way, in both halves


def test_the_table_stays_bounded_and_forgets_what_is_oldest() -> None:
    log = MadeUp(3000, nothing)
    base = BaseFilter(SPEC, BaseConfig(limit=300))
    for start in range(0, 3000, 100):
        part = slice(start, start + 100)
        base.close(base.shown(log.part(part), log.ts[part]))
    table = base.inputs.table
    # a call may bring as many keys as it likes; the next one makes room
    assert len(table) < 300 + 100 * 9
    assert len(set(table.keys[: len(table)].tolist())) == len(table)
    everything = base.plan.keys(log.part(slice(2999, 3000)))[0, 0]
    assert everything  # the row of all events is touched by each and stays
    assert table.values[: len(table), 0].max() == 3000


@pytest.mark.parametrize("rate", [0.002, 0.05, 0.8])
@pytest.mark.parametrize("rows", [300, 6000])
def test_without_signal_it_is_no_worse_than_the_rate(rate: float, rows: int) -> None:
    logit = float(np.log(rate / (1 - rate)))
    log = MadeUp(2 * rows, lambda u, _i, _: np.full(len(u), logit), seed=rows)
    base = BaseFilter(SPEC)
    events, labels = log.events(base)
    cut = int(np.searchsorted(events.ts, log.ts[rows]))
    base.fit(events.take(slice(0, cut)), labels[:cut])
    rest = MadeUp(2 * rows, lambda u, _i, _: np.full(len(u), logit), seed=rows)
    rest.columns = {k: v[rows:] for k, v in rest.columns.items()}
    rest.ts, rest.labels = rest.ts[rows:], rest.labels[rows:]
    z = stream(base, rest, 10)
    p = np.clip(log.labels[:rows].mean(), 0.5 / rows, 1)
    constant = np.full(rows, np.log(p / (1 - p)), np.float32)
    # in nats a row: what learning hundreds of weights from nothing may cost
    allowed = 0.0005 if rows > 1000 else 0.02
    assert logloss(rest.labels, z) <= logloss(rest.labels, constant) + allowed


def test_what_only_pairs_of_user_and_category_tell_is_learnt() -> None:
    def taste(users: NDArray[np.int64], items: NDArray[np.int64], _: object) -> Floats:
        likes = np.random.default_rng(5).choice([-2.0, 2.0], (60, 5))
        return np.asarray(likes[users, items % 5] - 1.0)

    log, base = MadeUp(8000, taste), BaseFilter(SPEC)
    z = stream(base, log, 8)
    late = slice(4000, 8000)
    found, possible = auc(log.labels[late], z[late]), auc(log.labels[late], log.p[late])
    assert found > possible - 0.02
    assert 0.95 < calibration(log.labels[late], z[late]) < 1.05


def test_a_live_start_is_useful_within_the_first_hundred_rows() -> None:
    log = MadeUp(400, lambda u, i, _: (i % 5 - 2.0) * 1.5 - 1)
    z = stream(BaseFilter(SPEC), log)
    assert auc(log.labels[100:], z[100:]) > 0.7
    p = log.labels.mean()
    constant = np.full(300, np.log(p / (1 - p)), np.float32)
    assert logloss(log.labels[100:], z[100:]) < logloss(log.labels[100:], constant)


def test_moments() -> None:
    assert moments_of(np.array([], np.int64)).tolist() == [0]
