from __future__ import annotations

import math

import pytest
from numpy.random import Generator, default_rng
from scipy import stats

from serving.experiments.analysis import (
    click_rate,
    difference,
    report,
    wilson,
)
from serving.experiments.exposure import Exposure
from serving.experiments.sample_ratio import ratio_check


def exposures_of(
    rng: Generator, users: int, rate: float, variant: str, *, spread: float, each: int
) -> list[Exposure]:
    """Users whose own rates differ by a beta of that spread, with up to 2 * each impressions."""
    own = rng.beta(rate / spread, (1 - rate) / spread, users)
    shown = rng.integers(1, 2 * each, users)
    return [
        Exposure(f"{variant}{u}", variant, None, int(click))
        for u in range(users)
        for click in rng.random(shown[u]) < own[u]
    ]


@pytest.mark.parametrize(("clicks", "n"), [(0, 10), (3, 10), (50, 100), (999, 1000)])
def test_wilson_is_that_of_scipy(clicks: int, n: int) -> None:
    expected = stats.binomtest(clicks, n).proportion_ci(0.95, method="wilson")
    got = wilson(clicks / n, n, 0.95)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high))


def test_with_one_exposure_a_user_the_rate_is_wilsons() -> None:
    rate = click_rate([1] * 100, [1] * 30 + [0] * 70, 0.95)
    assert rate.variance == pytest.approx(0.3 * 0.7 / 99)
    assert rate.interval.low == pytest.approx(wilson(0.3, 100, 0.95).low, abs=2e-3)


def test_repeating_each_outcome_widens_nothing_and_tells_nothing() -> None:
    """Ten equal impressions of a user are one piece of news: a naive interval would shrink."""
    once = click_rate([1] * 200, [1, 0] * 100, 0.95)
    tenfold = click_rate([10] * 200, [10, 0] * 100, 0.95)
    assert tenfold.variance == pytest.approx(once.variance)
    assert tenfold.interval.low == pytest.approx(once.interval.low, abs=1e-3)


def test_variance_is_that_of_the_bootstrap_over_users() -> None:
    rng = default_rng(5)
    shown = rng.integers(1, 30, 400)
    clicks = rng.binomial(shown, rng.beta(2, 3, 400))
    picks = rng.integers(0, 400, (4000, 400))
    boot = clicks[picks].sum(1) / shown[picks].sum(1)
    got = click_rate(shown.tolist(), clicks.tolist(), 0.95)
    assert math.sqrt(got.variance) == pytest.approx(float(boot.std()), rel=0.06)


def test_differences_cover_the_truth_as_often_as_they_say() -> None:
    """300 A/A tests whose users differ much: the 95 % interval holds 0 in about 95 %."""
    rng = default_rng(11)
    hits = naive_hits = 0
    for _ in range(300):
        pair = [exposures_of(rng, 100, 0.4, v, spread=0.5, each=10) for v in "ab"]
        result = report("aa", {"a": 0.5, "b": 0.5}, pair[0] + pair[1])
        [found] = result.differences
        hits += found.interval.low <= 0 <= found.interval.high
        rates = [v.ctr for v in result.variants]
        naive = math.sqrt(sum(r.value * (1 - r.value) / r.exposures for r in rates))
        naive_hits += abs(found.value) <= 1.96 * naive
    assert 0.91 <= hits / 300 <= 0.985
    assert naive_hits / 300 < 0.8


def test_a_true_difference_is_found() -> None:
    rng = default_rng(3)
    shown = exposures_of(rng, 800, 0.3, "a", spread=0.2, each=10)
    shown += exposures_of(rng, 800, 0.4, "b", spread=0.2, each=10)
    [found] = report("ab", {"a": 0.5, "b": 0.5}, shown, confidence=0.999).differences
    assert found.p_value is not None
    assert found.p_value < 1e-4
    assert found.interval.low < 0.1 < found.interval.high
    assert (found.variant, found.control) == ("b", "a")


def test_auc_is_per_variant() -> None:
    perfect = [Exposure(str(n), "a", n / 10, int(n > 4)) for n in range(10)]
    worst = [Exposure(str(n), "b", -n / 10, int(n > 4)) for n in range(10)]
    unscored = [Exposure("x", "b", None, 1)]
    result = report("e", {"a": 0.5, "b": 0.5}, perfect + worst + unscored)
    assert [(v.auc, v.scored, v.ctr.exposures) for v in result.variants] == [
        (1.0, 10, 10),
        (0.0, 10, 11),
    ]


def test_ratio_mismatch() -> None:
    assert not ratio_check({"a": 5050, "b": 4950}, {"a": 0.5, "b": 0.5}).alarm
    check = ratio_check({"a": 5250, "b": 4750}, {"a": 0.5, "b": 0.5})
    assert check.alarm
    # wider than the test for one look
    assert check.p_value > stats.chi2.sf(2 * 250**2 / 5000, 1)
    assert not ratio_check({"a": 90, "b": 10, "off": 3}, {"a": 0.9, "b": 0.1, "off": 0.0}).alarm
    assert not ratio_check({}, {"a": 0.9, "b": 0.1}).alarm


def test_the_report_says_why_to_doubt_it() -> None:
    shown = [Exposure(str(n), "a", 0.5, n % 2, 0.9) for n in range(400)]
    shown += [Exposure(str(n), "b", 0.5, n % 2, 0.5) for n in range(100)]
    notes = " ".join(report("e", {"a": 0.5, "b": 0.5}, shown).notes)
    assert "sample ratio mismatch" in notes
    assert "shown with share 0.9" in notes
    assert "100 users saw more than one" in notes


def test_empty_and_tiny_experiments() -> None:
    empty = report("e", {"a": 0.5, "b": 0.5}, [])
    assert [v.ctr.exposures for v in empty.variants] == [0, 0]
    assert empty.differences == ()
    one = report("e", {"a": 0.5, "b": 0.5}, [Exposure("u", "a", 0.2, 1)])
    assert one.variants[0].ctr.interval.low == 0.0
    none = click_rate([1] * 20, [0] * 20, 0.95)
    same = difference("b", none, "a", none, 0.95)
    assert same is not None
    assert same.p_value is None


@pytest.mark.parametrize("users", [2, 9])
def test_a_few_users_an_arm_say_nothing(users: int) -> None:
    """Two users who click all and two who click nothing are no proof of anything."""
    shown = [Exposure(f"{v}{n}", v, None, int(v == "b")) for v in "ab" for n in range(users)]
    result = report("e", {"a": 0.5, "b": 0.5}, shown)
    assert result.differences == ()
    assert "fewer than 10 users in a, b" in " ".join(result.notes)
    more = [Exposure(f"{v}{n}", v, None, int(v == "b")) for v in "ab" for n in range(12)]
    [found] = report("e", {"a": 0.5, "b": 0.5}, more).differences
    assert (found.p_value, found.interval.low, found.interval.high) == (None, -1.0, 1.0)


def test_the_false_alarms_of_a_small_experiment_are_as_rare_as_said() -> None:
    rng = default_rng(2)
    alarms = 0
    for _ in range(400):
        pair = [exposures_of(rng, 12, 0.4, v, spread=0.3, each=10) for v in "ab"]
        [found] = report("aa", {"a": 0.5, "b": 0.5}, pair[0] + pair[1]).differences
        alarms += found.p_value is not None and found.p_value < 0.05
    assert alarms / 400 < 0.085


def test_order_does_not_matter() -> None:
    rng = default_rng(1)
    shown = exposures_of(rng, 50, 0.4, "a", spread=0.5, each=5)
    shown += exposures_of(rng, 50, 0.4, "b", spread=0.5, each=5)
    mixed = [shown[i] for i in rng.permutation(len(shown))]
    one, two = (report("e", {"a": 0.5, "b": 0.5}, s) for s in (shown, mixed))
    [first], [second] = one.differences, two.differences
    assert first.p_value == pytest.approx(second.p_value)
    assert [v.ctr.clicks for v in one.variants] == [v.ctr.clicks for v in two.variants]
