"""The factor fit: equal to its equations, finds what was planted, leaks nothing."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import ortho_group

from inttower.errors import SpecError
from inttower.state.factors import FactorConfig, Factors, Outcomes, fit_factors

Doubles = npt.NDArray[np.float64]


@dataclass
class Planted:
    """A log drawn from the model itself."""

    outcomes: Outcomes
    users: Doubles
    items: Doubles
    z: Doubles


def planted(seed: int = 0, users: int = 300, items: int = 80, rows: int = 12_000) -> Planted:
    random = np.random.default_rng(seed)
    d = np.eye(3)[random.integers(0, 3, users)]
    x = np.c_[np.ones(items), np.eye(4)[random.integers(0, 4, items)]]
    u = d @ random.standard_normal((3, 3)) + random.standard_normal((users, 3))
    v = x @ random.standard_normal((5, 3)) + 0.3 * random.standard_normal((items, 3))
    b = 0.5 + 0.5 * random.standard_normal(items)
    user, item = random.integers(0, users, rows), random.integers(0, items, rows)
    z = b[item] + (u[user] * v[item]).sum(1)
    labels = (random.random(rows) < 1 / (1 + np.exp(-z))).astype(float)
    return Planted(Outcomes(user, item, labels), d, x, z)


SMALL = FactorConfig(size=4, iterations=6, vector_precision=3.0, seed=1)


def reference(log: Planted, config: FactorConfig) -> tuple[Doubles, Doubles]:
    """The EM of the module's docstring, written down with numpy, row by row."""
    user, item, y = log.outcomes.users, log.outcomes.items, log.outcomes.labels
    p, n_items = config.size, len(log.items)
    random = np.random.default_rng(config.seed)
    beta = config.spread * random.standard_normal((n_items, p + 1))
    beta[:, 0] = 1
    for j in range(n_items):
        mean = (y[item == j].sum() + 4 * y.mean()) / ((item == j).sum() + 4)
        beta[j, p] = np.log((mean + 1e-6) / (1 - mean + 1e-6))

    def ridge(a: Doubles, b: Doubles) -> Doubles:
        weights: Doubles = np.linalg.inv(a.T @ a + config.ridge * np.eye(a.shape[1])) @ a.T @ b
        return weights

    of_items, of_users = np.zeros((log.items.shape[1], p + 1)), np.zeros((log.users.shape[1], p))
    precision = np.diag([config.vector_precision] * p + [config.bias_precision])
    omega = np.full(len(y), 0.25)
    for _ in range(config.iterations):
        m, cov = {}, {}
        for k in range(len(log.users)):
            mine = user == k
            v, b = beta[item[mine], :p], beta[item[mine], p]
            cov[k] = np.linalg.inv(np.eye(p) + (omega[mine, None] * v).T @ v)
            m[k] = cov[k] @ (log.users[k] @ of_users + ((y[mine] - 0.5) - omega[mine] * b) @ v)
        for i in range(len(y)):
            v, b = beta[item[i], :p], beta[item[i], p]
            c = np.sqrt((b + v @ m[user[i]]) ** 2 + v @ cov[user[i]] @ v)
            omega[i] = np.tanh(c / 2) / (2 * c)
        left = np.tile(precision, (n_items, 1, 1))
        right = np.stack([precision @ (x @ of_items) for x in log.items])
        for i in range(len(y)):
            one = np.append(m[user[i]], 1.0)
            second = np.outer(one, one)
            second[:p, :p] += cov[user[i]]
            left[item[i]] += omega[i] * second
            right[item[i]] += (y[i] - 0.5) * one
        beta = np.stack([np.linalg.solve(a, b) for a, b in zip(left, right, strict=True)])
        of_users = ridge(log.users, np.stack([m[k] for k in range(len(log.users))]))
        of_items = ridge(log.items, beta)
    return beta, of_items


def logits(fit: Factors, users: Doubles, log: Planted) -> Doubles:
    item = log.outcomes.items
    z: Doubles = fit.b[item] + (users[log.outcomes.users] * fit.v[item]).sum(1)
    return z


def test_equals_its_equations() -> None:
    log = planted(users=30, items=10, rows=800)
    config = FactorConfig(size=3, iterations=4, vector_precision=2.0)
    fit = fit_factors(log.outcomes, log.users, log.items, config)
    beta, of_items = reference(log, config)
    np.testing.assert_allclose(np.c_[fit.v, fit.b], beta, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(fit.item_weights, of_items, rtol=1e-6, atol=1e-8)


def test_finds_what_was_planted_and_foretells_new_items() -> None:
    log = planted()
    known = log.outcomes.items < 70
    part = Outcomes(
        log.outcomes.users[known], log.outcomes.items[known], log.outcomes.labels[known]
    )
    fit = fit_factors(part, log.users, log.items, SMALL)
    from inttower.state.belief import SLOW, BeliefConfig, Beliefs

    beliefs = Beliefs(BeliefConfig(size=4, speeds=(SLOW,), variance=1.0))
    names = [f"u{k}" for k in range(300)]
    beliefs.learn(
        [names[k] for k in part.users],
        np.zeros(len(part)),
        labels=part.labels,
        v=fit.v[part.items],
        b=fit.b[part.items],
        prior=fit.user_prior(log.users)[part.users],
    )
    m = beliefs.as_of(names, np.zeros(300), fit.user_prior(log.users))[:, 0]
    z = logits(fit, m.astype(np.float64), log)
    assert np.corrcoef(z[known], log.z[known])[0, 1] > 0.9
    assert np.corrcoef(z[~known], log.z[~known])[0, 1] > 0.75
    new = fit.extended(log.items[70:])
    np.testing.assert_array_equal(new.v[80:], fit.v[70:])
    np.testing.assert_array_equal(new.b[80:], fit.b[70:])


def test_users_that_are_left_out_leave_no_trace() -> None:
    log = planted(rows=3_000)
    out = np.zeros(300, np.bool_)
    out[::4] = True
    flipped = log.outcomes.labels.copy()
    flipped[out[log.outcomes.users]] = 1 - flipped[out[log.outcomes.users]]
    other = Outcomes(log.outcomes.users, log.outcomes.items, flipped)
    one = fit_factors(log.outcomes, log.users, log.items, SMALL, without_users=out)
    two = fit_factors(other, log.users, log.items, SMALL, without_users=out)
    for name, array in one.state().items():
        np.testing.assert_array_equal(array, two.state()[name])
    whole = fit_factors(other, log.users, log.items, SMALL)
    assert not np.allclose(whole.v, one.v)


def test_the_order_of_rows_does_not_matter_beyond_rounding() -> None:
    log = planted(rows=2_000)
    turn = np.random.default_rng(0).permutation(2_000)
    o = log.outcomes
    shuffled = Outcomes(o.users[turn], o.items[turn], o.labels[turn])
    one = fit_factors(o, log.users, log.items, SMALL)
    two = fit_factors(shuffled, log.users, log.items, SMALL)
    np.testing.assert_allclose(one.v, two.v, atol=1e-9)
    again = fit_factors(o, log.users, log.items, SMALL)
    np.testing.assert_array_equal(one.v, again.v)


def test_a_refit_lies_on_the_factors_before_it() -> None:
    log = planted()
    before = fit_factors(log.outcomes, log.users, log.items, SMALL)
    counts = np.bincount(log.outcomes.items, minlength=80)
    turn = ortho_group.rvs(4, random_state=0)
    weights = before.item_weights.copy()
    weights[:, :-1] = weights[:, :-1] @ turn
    turned = Factors(before.v @ turn, before.b, before.user_weights @ turn, weights)
    back = turned.rotated_onto(before, counts)
    for name, array in before.state().items():
        np.testing.assert_allclose(back.state()[name], array, atol=1e-9)
    elsewhere = FactorConfig(size=4, iterations=6, vector_precision=3.0, seed=9)
    free = fit_factors(log.outcomes, log.users, log.items, elsewhere)
    laid = fit_factors(log.outcomes, log.users, log.items, elsewhere, before=before)

    def distance(fit: Factors) -> float:
        return float((counts[:, None] * (fit.v - before.v) ** 2).sum())

    assert distance(laid) < distance(free) / 2
    np.testing.assert_allclose(laid.v @ laid.v.T, free.v @ free.v.T, atol=1e-9)
    z_laid, z_free = (logits(f, f.user_prior(log.users), log) for f in (laid, free))
    np.testing.assert_allclose(z_laid, z_free, atol=1e-9)
    more = fit_factors(
        log.outcomes, log.users, np.r_[log.items, log.items[:5]], elsewhere, before=before
    )
    assert more.v.shape == (85, 4)


def test_saved_and_restored() -> None:
    log = planted(rows=500)
    fit = fit_factors(log.outcomes, log.users, log.items, SMALL)
    again = Factors.from_state(fit.state())
    for name, array in fit.state().items():
        assert array.tobytes() == again.state()[name].tobytes()


@pytest.mark.parametrize("labels", [0.0, 1.0])
def test_outcomes_that_are_all_alike_stay_finite(labels: float) -> None:
    log = planted(rows=500)
    o = log.outcomes
    fit = fit_factors(Outcomes(o.users, o.items, np.full(500, labels)), log.users, log.items, SMALL)
    assert all(np.isfinite(array).all() for array in fit.state().values())


def test_what_cannot_be_fitted_is_refused() -> None:
    log = planted(rows=50)
    none = np.zeros(0, np.int64)
    with pytest.raises(SpecError, match="on no outcomes"):
        fit_factors(Outcomes(none, none, np.zeros(0)), log.users, log.items)
    with pytest.raises(SpecError, match="item is outside the 3 rows"):
        fit_factors(log.outcomes, log.users, log.items[:3])
    with pytest.raises(SpecError, match="on no outcomes"):
        fit_factors(log.outcomes, log.users, log.items, without_users=np.ones(300, np.bool_))
