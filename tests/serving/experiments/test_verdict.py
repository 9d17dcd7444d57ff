"""The verdict on whole experiments: what it says, and how often it is wrong under daily reading."""

from __future__ import annotations

import numpy as np
import pytest

from serving.experiments.analysis import report
from serving.experiments.cohorts import DAY_MS, CohortUser, first_day
from serving.experiments.exposure import Exposure
from serving.experiments.sample_ratio import ratio_check
from serving.experiments.verdict import Plan, verdict

HALVES = {"a": 0.5, "b": 0.5}


def cohort(seed: int, users: int, lift: float, base: float = 0.1) -> list[CohortUser]:
    """Users that arrive one an hour, half in each variant."""
    rng = np.random.default_rng(seed)
    treated = rng.random(users) < 0.5
    rate = np.minimum(1.0, rng.beta(2, 2 / base - 2, users) * (1 + lift * treated))
    shown = 1 + rng.geometric(0.1, users)
    clicked = rng.binomial(shown, rate)
    return [
        CohortUser("ab"[t], number * 3_600_000, s, c, {"ab"[t]})
        for number, (t, s, c) in enumerate(
            zip(treated.tolist(), shown.tolist(), clicked.tolist(), strict=True)
        )
    ]


def decide(users: list[CohortUser], plan: Plan) -> str:
    seen = {name: sum(user.variant == name for user in users) for name in HALVES}
    return verdict("b", "a", users, plan, ratio_check(seen, HALVES)).decision


def test_whoever_reads_every_day_is_seldom_told_of_a_difference_that_is_not_there() -> None:
    plan = Plan(users=1_000, looks=5)
    wrong = 0
    for seed in range(60):
        users = cohort(seed, 1_000, lift=0.0)
        wrong += any(
            decide(users[:count], plan) in {"Ship", "Roll back"} for count in range(100, 1_001, 100)
        )
    assert wrong <= 6


@pytest.mark.parametrize(("lift", "expected"), [(0.6, "Ship"), (-0.6, "Roll back")])
def test_a_large_difference_is_found_before_the_end_and_stays(lift: float, expected: str) -> None:
    users = cohort(1, 1_500, lift)
    plan = Plan(users=1_500, looks=10)
    decisions = [decide(users[:count], plan) for count in range(150, 1_501, 150)]
    first = decisions.index(expected)
    assert first < len(decisions) - 1
    assert set(decisions[first:]) == {expected}
    assert set(decisions[:first]) <= {"Continue"}


def test_a_look_is_of_the_same_users_at_each_reading_with_a_third_variant_too() -> None:
    users = cohort(4, 1_100, 0.0)
    for user in users[1_000:]:
        user.variant = "c"
    plan = Plan(users=2_000, looks=2)
    ratio = ratio_check({}, HALVES)
    readings = [
        verdict("b", "a", users[:count], plan, ratio).intervals[0]
        for count in (1_000, 1_001, 1_100)
    ]
    assert readings[0].look == 1
    assert readings[0] == readings[1] == readings[2]


def test_an_equal_variant_ends_in_review_and_an_open_end_in_continue() -> None:
    users = cohort(2, 600, 0.0)
    assert decide(users, Plan(users=600, looks=3)) == "Review"
    assert decide(users, Plan()) == "Continue"
    assert decide(users[:20], Plan(users=600)) == "No data"


def test_broken_shares_and_wandering_users_are_unhealthy() -> None:
    users = cohort(3, 600, 0.6)
    lost = [user for user in users if user.variant == "a" or user.first_ts % 7_200_000]
    assert decide(lost, Plan(users=600)) == "Unhealthy"
    for user in users[:30]:
        user.variants = {"a", "b"}
    assert decide(users, Plan(users=600)) == "Unhealthy"


def test_a_user_counts_when_its_first_day_is_over_and_never_changes_again() -> None:
    shown = [Exposure("u", "a", None, 1, ts=hour * 3_600_000) for hour in (0, 1, 30)]
    assert first_day(shown, DAY_MS - 1) == []
    [user] = first_day(shown, DAY_MS)
    assert (user.shown, user.clicked) == (2, 2)
    assert first_day(shown, 10 * DAY_MS) == [user]


def test_the_report_carries_the_verdict() -> None:
    rng = np.random.default_rng(0)
    shown = [
        Exposure(str(u), "ab"[u % 2], None, int(rng.random() < 0.1 + 0.2 * (u % 2)), ts=u * 1_000)
        for u in range(2_000)
        for _ in range(3)
    ]
    found = report("e", HALVES, shown, plan=Plan(users=2_000), closed_until_ms=3 * DAY_MS)
    assert [(v.variant, v.decision) for v in found.verdicts] == [("b", "Ship")]
    assert not report("e", HALVES, shown).verdicts
