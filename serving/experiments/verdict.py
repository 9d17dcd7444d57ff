"""What to do with an experiment: one line, valid however often the report is read.

The verdict is taken at planned looks: the k-th of K looks is at the first k/K of the planned users
of the first-day cohort, no matter when the report is read. At each look the difference has its
group-sequential interval. An experiment without a planned number of users has the anytime-valid
interval alone, which is wider.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np

from serving.experiments.cohorts import DAY_MS, CohortUser
from serving.experiments.ratios import FEWEST_USERS, RatioSums, ratio_difference
from serving.experiments.sample_ratio import RatioCheck
from serving.experiments.sequential import anytime_factor, group_sequential_bounds

Decision = Literal["Ship", "Roll back", "Review", "Continue", "Unhealthy", "No data"]

# users that changed their variant: more than this and the assignment is not what it claims
MOST_MOVED = 0.01
# without a plan the anytime-valid interval is tightest here
_UNPLANNED_USERS = 5_000


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an experiment file says of its end.

    Args:
        users: of all variants together, at which it ends; None: open end.
        looks: how often a verdict is taken on the way.
        minimum_effect: the smallest relative change of the rate that matters.
    """

    users: Annotated[int, msgspec.Meta(ge=100)] | None = None
    looks: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    minimum_effect: Annotated[float, msgspec.Meta(gt=0)] = 0.02


@dataclass(frozen=True, slots=True)
class SequentialInterval:
    """A difference of first-day rates with an interval, and how that may be read.

    Attributes:
        kind: ``anytime`` holds at every moment; ``planned look`` at the looks of the plan.
        users: in it, of both variants.
        look: number of the planned look, from 1; None for ``anytime``.
    """

    kind: Literal["anytime", "planned look"]
    value: float
    low: float
    high: float
    users: int
    look: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do about one variant, why, and the intervals that say so."""

    variant: str
    decision: Decision
    reason: str
    intervals: tuple[SequentialInterval, ...] = ()


def verdict(
    variant: str,
    control: str,
    cohort: Sequence[CohortUser],
    plan: Plan,
    ratio: RatioCheck,
    *,
    alpha: float = 0.05,
) -> Verdict:
    """The verdict on one variant against the control.

    Args:
        variant: its name.
        control: the control's name.
        cohort: of all variants, in the order in which users came.
        plan: of the experiment.
        ratio: the check of its sample ratio.
        alpha: error over all looks together.
    """
    if sick := _unhealthy(cohort, ratio):
        return Verdict(variant, "Unhealthy", sick)
    users = [user for user in cohort if user.variant in {variant, control}]
    anytime = _anytime(variant, control, users, plan, alpha)
    if anytime is None:
        return Verdict(
            variant,
            "No data",
            f"{len(users)} users have finished their first day; {FEWEST_USERS} a variant are"
            " needed for an interval",
        )
    if plan.users is None:
        decision, reason = _read(anytime, variant, control)
        return Verdict(variant, decision, reason, (anytime,))
    planned = _planned_look(variant, control, cohort, plan, alpha)
    if planned is None:
        first = plan.users // plan.looks
        return Verdict(
            variant,
            "Continue",
            f"the first look is at {first} users, {len(cohort)} are there{_days(cohort, first)}",
            (anytime,),
        )
    decision, reason = _read(planned, variant, control)
    if decision == "Continue" and planned.look == plan.looks:
        decision, reason = "Review", _at_the_end(planned, users, control, plan)
    elif decision == "Continue":
        reason = f"no difference yet{_days(cohort, plan.users)}"
    return Verdict(variant, decision, reason, (planned, anytime))


def _unhealthy(cohort: Sequence[CohortUser], ratio: RatioCheck) -> str | None:
    if ratio.alarm:
        return (
            f"users per variant do not fit the shares (p = {ratio.p_value:.2g}): look for a"
            " variant that fails or logs less"
        )
    moved = sum(len(user.variants) > 1 for user in cohort)
    if cohort and moved > MOST_MOVED * len(cohort):
        return f"{moved} of {len(cohort)} users saw more than one variant"
    return None


def _sums(users: Sequence[CohortUser], name: str) -> RatioSums:
    mine = [user for user in users if user.variant == name]
    return RatioSums.of(
        np.array([user.shown for user in mine], np.float64),
        np.array([user.clicked for user in mine], np.float64),
    )


def _anytime(
    variant: str, control: str, users: Sequence[CohortUser], plan: Plan, alpha: float
) -> SequentialInterval | None:
    found = ratio_difference(_sums(users, variant), _sums(users, control))
    if found is None:
        return None
    half = found.error * anytime_factor(found.users, plan.users or _UNPLANNED_USERS, alpha)
    return SequentialInterval(
        "anytime", found.value, found.value - half, found.value + half, found.users
    )


def _planned_look(
    variant: str,
    control: str,
    cohort: Sequence[CohortUser],
    plan: Plan,
    alpha: float,
) -> SequentialInterval | None:
    """The first look that decides, or the newest one; None before the first."""
    fractions = tuple((k + 1) / plan.looks for k in range(plan.looks))
    bounds = group_sequential_bounds(fractions, alpha)
    newest = None
    for look, (fraction, bound) in enumerate(zip(fractions, bounds, strict=True), 1):
        if plan.users is None or len(cohort) < fraction * plan.users:
            break
        # of all variants: the same users at each reading, however many have come since
        some = cohort[: round(fraction * plan.users)]
        found = ratio_difference(_sums(some, variant), _sums(some, control))
        if found is None:
            continue
        half = bound * found.error
        newest = SequentialInterval(
            "planned look",
            found.value,
            found.value - half,
            found.value + half,
            found.users,
            look,
        )
        if newest.low > 0 or newest.high < 0:
            return newest
    return newest


def _read(interval: SequentialInterval, variant: str, control: str) -> tuple[Decision, str]:
    between = f"{interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
    if interval.low > 0:
        return "Ship", f"{variant} has the higher rate: {between}"
    if interval.high < 0:
        return "Roll back", f"{variant} has the lower rate: {between}"
    return "Continue", f"{variant} and {control} cannot be told apart yet: {between}"


def _at_the_end(
    interval: SequentialInterval, users: Sequence[CohortUser], control: str, plan: Plan
) -> str:
    matters = plan.minimum_effect * _sums(users, control).value
    if -matters < interval.low and interval.high < matters:
        return f"no difference of {plan.minimum_effect:.0%} or more: decide by cost"
    return (
        f"the planned users are in, and a difference of {plan.minimum_effect:.0%} is neither shown"
        " nor excluded: plan a longer run, or decide by cost"
    )


def _days(cohort: Sequence[CohortUser], wanted: int) -> str:
    span = cohort[-1].first_ts - cohort[0].first_ts if len(cohort) > 1 else 0
    missing = wanted - len(cohort)
    if span <= 0 or missing <= 0:
        return ""
    days = missing * span / len(cohort) / DAY_MS
    return f"; about {days:.1f} days left at this rate"


def verdicts(
    shares: Mapping[str, float], cohort: Sequence[CohortUser], plan: Plan, ratio: RatioCheck
) -> tuple[Verdict, ...]:
    """A verdict on every variant but the first, which is the control; alpha shared (Bonferroni)."""
    control, *others = shares
    alpha = 0.05 / max(1, len(others))
    return tuple(verdict(name, control, cohort, plan, ratio, alpha=alpha) for name in others)
