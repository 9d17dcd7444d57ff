"""False alarms of every interval under peeking, with users as clusters, and the loss of power."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from serving.experiments.ratios import RatioSums, ratio_difference
from serving.experiments.sample_ratio import ratio_check
from serving.experiments.sequential import anytime_factor, group_sequential_bounds

SEEDS, LOOKS, USERS = 400, 30, 2_000
BASE = 0.1
FRACTIONS = tuple((k + 1) / LOOKS for k in range(LOOKS))


def users(rng: np.random.Generator, count: int, lift: float) -> tuple[NDArray[np.float64], ...]:
    """Impressions and clicks of users that differ in both."""
    shown = 1.0 + rng.geometric(0.1, count)
    rate = np.clip(rng.beta(2, 2 / BASE - 2, count) * (1 + lift), 0, 1)
    return shown, rng.binomial(shown.astype(np.int64), rate).astype(np.float64)


def statistics(seed: int, lift: float) -> list[float]:
    """z of the difference at each look, for one experiment."""
    rng = np.random.default_rng(seed)
    a, b = users(rng, USERS // 2, 0.0), users(rng, USERS // 2, lift)
    found = []
    for look in range(1, LOOKS + 1):
        n = USERS // 2 * look // LOOKS
        difference = ratio_difference(
            RatioSums.of(b[0][:n], b[1][:n]), RatioSums.of(a[0][:n], a[1][:n])
        )
        assert difference is not None
        found.append(difference.value / difference.error)
    return found


@pytest.fixture(scope="module")
def null() -> NDArray[np.float64]:
    """z of A/A experiments, [SEEDS, LOOKS]."""
    return np.array([statistics(seed, 0.0) for seed in range(SEEDS)])


def test_looking_often_at_the_fixed_interval_is_what_goes_wrong(null: NDArray[np.float64]) -> None:
    assert (np.abs(null) > 1.96).any(axis=1).mean() > 0.15
    assert 0.03 <= (np.abs(null[:, -1]) > 1.96).mean() <= 0.07


def test_group_sequential_alarms_stay_at_five_percent(null: NDArray[np.float64]) -> None:
    bounds = group_sequential_bounds(FRACTIONS)
    assert (np.abs(null) > np.array(bounds)).any(axis=1).mean() <= 0.07


def test_anytime_alarms_stay_at_five_percent(null: NDArray[np.float64]) -> None:
    factors = [anytime_factor(USERS * (k + 1) / LOOKS, USERS) for k in range(LOOKS)]
    assert (np.abs(null) > np.array(factors)).any(axis=1).mean() <= 0.05


def test_group_sequential_costs_little_power() -> None:
    z = np.array([statistics(10_000 + seed, 0.15) for seed in range(150)])
    bounds = np.array(group_sequential_bounds(FRACTIONS))
    once = (np.abs(z[:, -1]) > 1.96).mean()
    sequential = (np.abs(z) > bounds).any(axis=1).mean()
    assert once > 0.3
    assert sequential >= 0.9 * once


def test_bounds_are_those_in_print() -> None:
    """Lan-DeMets, O'Brien-Fleming type, two-sided .05 at five equal looks (Jennison, Turnbull)."""
    bounds = group_sequential_bounds((0.2, 0.4, 0.6, 0.8, 1.0))
    assert bounds == pytest.approx([4.877, 3.357, 2.680, 2.290, 2.031], abs=2e-3)
    assert group_sequential_bounds((1.0,)) == pytest.approx([stats.norm.isf(0.025)], abs=1e-3)
    with pytest.raises(ValueError, match="rise"):
        group_sequential_bounds((0.5, 0.5))


def test_the_ratio_check_holds_at_every_look_and_finds_what_is_broken() -> None:
    rng = np.random.default_rng(7)
    alarms = 0
    for _ in range(400):
        drawn = rng.random(5_000) < 0.5
        running = np.cumsum(drawn).tolist()
        alarms += any(
            ratio_check({"a": running[n], "b": n + 1 - running[n]}, {"a": 0.5, "b": 0.5}).alarm
            for n in range(99, 5_000, 175)
        )
    assert alarms <= 1
    assert ratio_check({"a": 5_300, "b": 4_700}, {"a": 0.5, "b": 0.5}).alarm
