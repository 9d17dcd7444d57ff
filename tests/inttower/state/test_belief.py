"""Beliefs: the posterior they should be, the times they answer for, and what bounds them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inttower.errors import StateError
from inttower.state import kalman
from inttower.state.belief import FAST, MEDIUM, SLOW, BeliefConfig, Beliefs, DriftRates, Learnt

Doubles = npt.NDArray[np.float64]
P = 3
CONFIG = BeliefConfig(size=P, speeds=(SLOW, MEDIUM, FAST), window_ms=50, gap_ms=20)


class Stream:
    """A random log in the order of closing, with ties in time, and who said what."""

    def __init__(self, seed: int, n: int, users: int = 4) -> None:
        random = np.random.default_rng(seed)
        self.closed = np.sort(random.integers(0, 3 * n + 1, n))
        self.seen = self.closed - random.integers(1, CONFIG.window_ms + 1, n)
        self.users = [f"u{k}" for k in random.integers(0, users, n)]
        self.labels = random.integers(0, 2, n)
        self.v = random.standard_normal((n, P))
        self.b = random.standard_normal(n)
        self.prior = np.array([np.full(P, 0.1 * int(u[1:])) for u in self.users]).reshape(n, P)

    def teach(self, beliefs: Beliefs, rows: Sequence[int] | npt.NDArray[Any]) -> Learnt:
        rows = np.asarray(rows, np.int64)
        return beliefs.learn(
            [self.users[i] for i in rows],
            self.closed[rows],
            labels=self.labels[rows],
            v=self.v[rows],
            b=self.b[rows],
            prior=self.prior[rows],
        )

    def look(self, beliefs: Beliefs, rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        return beliefs.as_of([self.users[i] for i in rows], self.seen[rows], self.prior[rows])


def cuts(n: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Rows 0..n-1 cut into runs at random places."""
    random = np.random.default_rng(seed)
    where = np.sort(random.choice(n + 1, size=min(n, int(random.integers(0, 6))), replace=True))
    return np.split(np.arange(n), where)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        bytes(a) == bytes(other[k]) if isinstance(a, bytes) else a.tobytes() == other[k].tobytes()
        for k, a in one.items()
    )


@given(seed=st.integers(0, 2**32), p=st.integers(1, 12), n=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_gaussian_outcomes_without_drift_give_the_batch_posterior(
    seed: int, p: int, n: int
) -> None:
    random = np.random.default_rng(seed)
    v, y = random.standard_normal((n, p)), random.standard_normal(n)
    start = random.standard_normal(p)
    noise = random.uniform(0.5, 4.0, n)
    m, cov, sv = start.copy(), 2.5 * np.eye(p), np.empty(p)
    for i in range(n):
        z, h = kalman.project(m, cov, v[i], sv)
        kalman.absorb(m, cov, sv, 1.0 / (noise[i] + h), y[i] - z)
    precision = np.eye(p) / 2.5 + (v / noise[:, None]).T @ v
    mean = np.linalg.solve(precision, start / 2.5 + (v / noise[:, None]).T @ y)
    np.testing.assert_allclose(cov, np.linalg.inv(precision), atol=2e-5)
    np.testing.assert_allclose(m, mean, atol=2e-5)


def test_the_step_is_the_one_of_the_docstring() -> None:
    """The same filter, written down with numpy in double precision, over one user's life."""
    stream = Stream(3, 200, users=1)
    stream.closed = np.cumsum(np.where(np.arange(200) % 17 == 0, 25, 1))  # gaps are over 20
    beliefs = Beliefs(CONFIG)
    got = stream.teach(beliefs, range(200))
    for s, speed in enumerate(CONFIG.speeds):
        m, cov = np.zeros(P), 2.5 * np.eye(P)
        first = np.eye(P)[0]
        for i in range(200):
            v, z0 = stream.v[i], stream.b[i] + stream.v[i] @ m
            if i and stream.closed[i] - stream.closed[i - 1] > CONFIG.gap_ms:
                cov = cov + np.diag(np.where(first, speed.gap_first, speed.gap))
            h = v @ cov @ v
            np.testing.assert_allclose((got.z[i, s], got.h[i, s]), (z0, h), rtol=1e-3, atol=1e-4)
            mean, variance = z0, h
            for _ in range(2):
                c = np.sqrt(mean**2 + variance)
                omega = np.tanh(c / 2) / (2 * c)
                f = 1 / (1 / omega + h)
                step = f * ((stream.labels[i] - 0.5) / omega - z0)
                sv = cov @ v
                new_m, new_cov = m + sv * step, cov - f * np.outer(sv, sv)
                mean, variance = stream.b[i] + v @ new_m, v @ new_cov @ v
            m = new_m
            cov = new_cov + np.diag(np.where(first, speed.drift_first, speed.drift))


def test_a_yes_raises_and_a_no_lowers_most_where_least_is_known() -> None:
    beliefs = Beliefs(BeliefConfig(size=2))
    v, prior = np.array([[1.0, 0.0]]), np.zeros((1, 2))
    steps = []
    for k in range(5):
        beliefs.learn(["u"], [k], labels=[1], v=v, b=[0.0], prior=prior)
        steps.append(beliefs.as_of(["u"], [k], prior)[0, 0, 0])
    moves = np.diff([0.0, *steps])
    assert (moves > 0).all()
    assert (np.diff(moves) < 0).all()
    beliefs.learn(["u"], [5], labels=[0], v=v, b=[0.0], prior=prior)
    assert beliefs.as_of(["u"], [5], prior)[0, 0, 0] < steps[-1]


@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), cut=st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_as_of_is_the_state_of_the_moment_however_the_stream_was_cut(
    seed: int, n: int, cut: int
) -> None:
    stream, beliefs = Stream(seed, n), Beliefs(CONFIG)
    for rows in cuts(n, cut):
        if not len(rows):
            continue
        stream.teach(beliefs, rows)
        got = stream.look(beliefs, rows)
        for i, mean in zip(rows, got, strict=True):
            known = [
                j
                for j in range(n)
                if stream.users[j] == stream.users[i] and stream.closed[j] <= stream.seen[i]
            ]
            alone = Beliefs(CONFIG)
            stream.teach(alone, known)
            want = alone.as_of([stream.users[i]], [2**60], stream.prior[i : i + 1])[0]
            np.testing.assert_array_equal(mean, want)


@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), cut=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_bytes_do_not_depend_on_calls_nor_on_a_restart(seed: int, n: int, cut: int) -> None:
    stream, whole, parts = Stream(seed, n), Beliefs(CONFIG), Beliefs(CONFIG)
    stream.teach(whole, range(n))
    for rows in cuts(n, cut):
        stream.teach(parts, rows)
        saved = parts.state()
        parts = Beliefs(CONFIG)
        parts.load_state(saved)
        assert same(parts.state(), saved)
    assert same(parts.state(), whole.state())
    assert parts.frontier == whole.frontier


@given(seed=st.integers(0, 2**32), n=st.integers(2, 60))
@settings(max_examples=40, deadline=None)
def test_labels_from_a_time_on_change_nothing_before_it(seed: int, n: int) -> None:
    stream, other = Stream(seed, n), Stream(seed, n)
    t = stream.closed[n // 2]
    later = other.closed >= t
    other.labels[later] = np.random.default_rng(seed).permutation(1 - other.labels[later])
    one, two = Beliefs(CONFIG), Beliefs(CONFIG)
    scores, scores_other = stream.teach(one, range(n)), other.teach(two, range(n))
    np.testing.assert_array_equal(scores.z[stream.closed <= t], scores_other.z[stream.closed <= t])
    rows = np.flatnonzero((stream.seen < t) & (stream.seen >= one.horizon))
    np.testing.assert_array_equal(stream.look(one, rows), other.look(two, rows))


@given(seed=st.integers(0, 2**32), n=st.integers(1, 60))
@settings(max_examples=40, deadline=None)
def test_the_order_of_users_does_not_matter(seed: int, n: int) -> None:
    stream = Stream(seed, n)
    shuffled = np.random.default_rng(seed).permutation(4)
    turn = np.lexsort(([shuffled[int(u[1:])] for u in stream.users], stream.closed))
    one, two = Beliefs(CONFIG), Beliefs(CONFIG)
    scores, scores_other = stream.teach(one, range(n)), stream.teach(two, turn)
    np.testing.assert_array_equal(scores.z[turn], scores_other.z)
    np.testing.assert_array_equal(scores.h[turn], scores_other.h)
    rows = np.flatnonzero(stream.seen >= one.horizon)
    np.testing.assert_array_equal(stream.look(one, rows), stream.look(two, rows))


def test_rows_of_one_instant_are_scored_on_one_state() -> None:
    stream = Stream(5, 40, users=2)
    stream.closed = np.repeat([10, 20], 20)
    got = stream.teach(Beliefs(CONFIG), range(40))
    for i in range(40):
        alone = Beliefs(CONFIG)
        stream.teach(alone, [j for j in range(40) if stream.closed[j] < stream.closed[i]])
        want = stream.teach(alone, [i])
        np.testing.assert_array_equal(got.z[i], want.z[0])
        np.testing.assert_array_equal(got.h[i], want.h[0])


@pytest.mark.parametrize("speed", [SLOW, MEDIUM, FAST])
def test_covariance_stays_positive_definite_over_a_million_updates(speed: DriftRates) -> None:
    random = np.random.default_rng(0)
    p, n = 8, 100_000
    beliefs = Beliefs(BeliefConfig(size=p, speeds=(speed,)))
    prior = np.zeros((n, p))
    times = np.cumsum(random.integers(0, 600_000, 10 * n))
    for k in range(10):
        v = random.standard_normal((n, p)) * 10 ** random.uniform(-2, 1)
        if k % 3 == 2:
            v[:] = v[0]  # one direction only, where S gets as thin as it can
        beliefs.learn(
            ["u"] * n,
            times[k * n : (k + 1) * n],
            labels=random.integers(0, 2, n),
            v=v,
            b=random.standard_normal(n),
            prior=prior,
        )
        m, cov = np.empty(p), np.empty((p, p))
        state = beliefs.state()
        kalman.load(
            np.asarray(state["table.mean"])[0, 0], np.asarray(state["table.cov"])[0, 0], m, cov
        )
        assert np.isfinite(m).all()
        assert np.linalg.eigvalsh(cov).min() > 0


def test_variances_are_those_that_learning_reports() -> None:
    stream, beliefs = Stream(9, 50, users=1), Beliefs(CONFIG)
    np.testing.assert_allclose(
        beliefs.variances("u0", stream.v),
        2.5 * np.tile((stream.v**2).sum(1)[:, None], 3),
        rtol=1e-6,
    )
    stream.teach(beliefs, range(49))
    want = beliefs.variances("u0", stream.v[49:])
    stream.closed[49] = stream.closed[48]
    np.testing.assert_allclose(stream.teach(beliefs, [49]).h, want, rtol=1e-6)


def test_users_unseen_the_longest_make_room() -> None:
    beliefs = Beliefs(BeliefConfig(size=1, max_users=4))
    prior = np.ones((1, 1))
    for t, user in enumerate(["a", "b", "c", "d", "a", "e"]):
        beliefs.learn([user], [t], labels=[1], v=[[1.0]], b=[0.0], prior=prior)
    assert len(beliefs) == 4
    mean = beliefs.as_of(["a", "b", "e"], [9, 9, 9], np.ones((3, 1)))[:, 0, 0]
    assert mean[1] == 1.0  # b is as if never met
    assert mean[0] > mean[2] > 1.0
    assert beliefs.expire(before_ts=4) == ["c", "d"]
    assert len(beliefs) == 2
    again = Beliefs(BeliefConfig(size=1, max_users=4))
    again.load_state(beliefs.state())
    assert same(again.state(), beliefs.state())
    for one in (beliefs, again):
        one.learn(["f", "g"], [9, 9], labels=[1, 0], v=[[1.0]] * 2, b=[0, 0], prior=[[0], [0]])
    assert same(again.state(), beliefs.state())


def test_a_call_of_more_users_than_may_be_held_lets_the_earlier_ones_go() -> None:
    users = [f"u{k}" for k in range(30)]
    beliefs = Beliefs(BeliefConfig(size=1, max_users=7, window_ms=10))
    # given backwards: it is the closing time that counts
    found = beliefs.learn(
        users[::-1],
        np.arange(30)[::-1],
        labels=[1] * 30,
        v=np.ones((30, 1)),
        b=np.zeros(30),
        prior=np.zeros((30, 1)),
    )
    assert (found.h > 0).all()
    assert len(beliefs) == 7
    mean = beliefs.as_of(users, np.full(30, 29), np.zeros((30, 1)))[:, 0, 0]
    assert (mean[:23] == 0).all()
    assert (mean[23:] > 0).all()


def test_the_log_is_as_long_as_the_window_and_no_longer() -> None:
    beliefs = Beliefs(BeliefConfig(size=1, window_ms=100))
    for t in range(5_000):
        beliefs.learn(["u"], [t], labels=[t % 2], v=[[1.0]], b=[0.0], prior=[[0.0]])
    assert len(beliefs.state()["log.at"]) == 100
    assert len(beliefs._log.at) == 128


def test_what_cannot_be_answered_is_refused() -> None:
    beliefs = Beliefs(BeliefConfig(size=1, window_ms=100))
    assert beliefs.frontier is None
    assert beliefs.as_of(["u"], [-5], [[3.0]]).tolist() == [[[3.0]]]
    assert beliefs.learn([], [], labels=[], v=[], b=[], prior=[]).z.shape == (0, 1)
    beliefs.learn(["u"], [1_000], labels=[1], v=[[1.0]], b=[0.0], prior=[[0.0]])
    with pytest.raises(StateError, match=r"closed at 999.*up to 1000"):
        beliefs.learn(["u"], [999], labels=[1], v=[[1.0]], b=[0.0], prior=[[0.0]])
    beliefs.learn(["u"], [2_000], labels=[1], v=[[1.0]], b=[0.0], prior=[[0.0]])
    assert beliefs.horizon == 1_900
    with pytest.raises(StateError, match="reaches back to 1900"):
        beliefs.as_of(["u"], [1_899], [[0.0]])
    with pytest.raises(StateError, match="shape"):
        Beliefs(BeliefConfig(size=2)).load_state(beliefs.state())
