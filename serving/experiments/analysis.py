"""Statistics of an experiment: pure functions on dataclasses.

Users are what is assigned, and one user sees many impressions, whose outcomes resemble each
other. Every interval here therefore counts *users* as independent, not impressions:

* The click-through rate of a variant is a ratio of sums over users, clicks over exposures. Its
  variance is that of the delta method (Deng, Knoblich, Lu: "Applying the delta method in metric
  analytics", KDD 2018), the same as cluster-robust variance with users as clusters.
* The interval of one rate is Wilson's, with the number of exposures divided by the design effect
  (that variance over the binomial one; never under 1). With one exposure a user it is the plain
  Wilson interval.
* The interval of a difference is Student's on the sum of the two variances, with the degrees of
  freedom of Welch and Satterthwaite. Under 10 users an arm no difference is reported: the
  variance of so few users is too uncertain for a p-value.

These intervals are for one look. What may be read every day is the verdict
(:mod:`serving.experiments.verdict`) and the sample ratio (:mod:`serving.experiments.sample_ratio`).

A read-only consumer's view of the samples is brought here by :mod:`serving.experiments.exposures`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inttower.evaluate import auc
from serving.experiments.cohorts import first_day
from serving.experiments.exposure import Exposure
from serving.experiments.sample_ratio import RatioCheck, ratio_check
from serving.experiments.verdict import Plan, Verdict, verdicts

MIN_USERS = 10
_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Interval:
    """From ``low`` to ``high``, both included."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ClickRate:
    """A click-through rate with the variance that users as clusters give it."""

    users: int
    exposures: int
    clicks: int
    value: float
    variance: float
    interval: Interval


@dataclass(frozen=True, slots=True)
class VariantReport:
    """One variant. ``auc`` is of logged score against outcome; None without both outcomes."""

    name: str
    share: float
    ctr: ClickRate
    auc: float | None
    scored: int


@dataclass(frozen=True, slots=True)
class RateDifference:
    """A variant's rate minus the control's, its interval, and the two-sided p-value.

    The p-value is None where no user differs from another: there is nothing to measure chance by.
    """

    variant: str
    control: str
    value: float
    interval: Interval
    p_value: float | None


@dataclass(frozen=True, slots=True)
class ExperimentReport:
    """Everything about one experiment; ``notes`` are reasons to doubt it."""

    experiment: str
    confidence: float
    variants: tuple[VariantReport, ...]
    differences: tuple[RateDifference, ...]
    ratio: RatioCheck
    notes: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()


def wilson(value: float, n: float, confidence: float) -> Interval:
    """Wilson's score interval of a proportion; ``n`` need not be whole.

    >>> interval = wilson(0.5, 100, 0.95)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.4038, 0.5962)
    """
    if n <= 0:
        return Interval(0.0, 1.0)
    z2 = float(stats.norm.ppf(0.5 + confidence / 2)) ** 2
    centre = (value + z2 / (2 * n)) / (1 + z2 / n)
    half = math.sqrt(z2 * (value * (1 - value) / n + z2 / (4 * n * n))) / (1 + z2 / n)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))


def click_rate(exposures: Sequence[int], clicks: Sequence[int], confidence: float) -> ClickRate:
    """The rate of one variant.

    Args:
        exposures: of each user, at least 1.
        clicks: of each user, in the same order.
        confidence: of the interval, such as 0.95.
    """
    shown: _Floats = np.asarray(exposures, dtype=np.float64)
    clicked: _Floats = np.asarray(clicks, dtype=np.float64)
    users, n = len(shown), float(shown.sum())
    if users == 0:
        return ClickRate(0, 0, 0, math.nan, math.nan, Interval(0.0, 1.0))
    value = float(clicked.sum()) / n
    if users == 1:
        # one user says nothing about how users differ
        return ClickRate(1, int(n), int(clicked.sum()), value, math.nan, Interval(0.0, 1.0))
    residual = clicked - value * shown
    variance = users * float(residual.var(ddof=1)) / n**2
    binomial = value * (1 - value) / n
    effect = max(1.0, variance / binomial) if binomial > 0 else 1.0
    interval = wilson(value, n / effect, confidence)
    return ClickRate(users, int(n), int(clicked.sum()), value, variance, interval)


def difference(
    variant: str, rate: ClickRate, control: str, base: ClickRate, confidence: float
) -> RateDifference | None:
    """The variant's rate minus the control's; None with fewer than 10 users in either."""
    if min(rate.users, base.users) < MIN_USERS:
        return None
    value, deviation = rate.value - base.value, math.sqrt(rate.variance + base.variance)
    if deviation == 0:
        return RateDifference(variant, control, value, Interval(-1.0, 1.0), None)
    freedom = (rate.variance + base.variance) ** 2 / (
        rate.variance**2 / (rate.users - 1) + base.variance**2 / (base.users - 1)
    )
    half = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * deviation
    p_value = float(2 * stats.t.sf(abs(value) / deviation, freedom))
    return RateDifference(variant, control, value, Interval(value - half, value + half), p_value)


def as_served_auc(scores: Sequence[float], labels: Sequence[int]) -> float | None:
    """AUC of the logged scores; None unless both outcomes are there."""
    if len(set(labels)) < 2:
        return None
    return auc(np.asarray(labels), np.asarray(scores))


@dataclass(slots=True)
class _Tally:
    shown: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    clicked: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    scores: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    propensities: set[float] = field(default_factory=set)

    def add(self, exposure: Exposure) -> None:
        self.shown[exposure.user_id] += 1
        self.clicked[exposure.user_id] += exposure.label
        if exposure.score is not None:
            self.scores.append(exposure.score)
            self.labels.append(exposure.label)
        if exposure.propensity is not None:
            self.propensities.add(exposure.propensity)


def report(
    name: str,
    shares: Mapping[str, float],
    exposures: Iterable[Exposure],
    *,
    confidence: float = 0.95,
    plan: Plan | None = None,
    closed_until_ms: int | None = None,
) -> ExperimentReport:
    """The report of one experiment.

    Args:
        name: of the experiment.
        shares: of its variants, the control first.
        exposures: impressions whose attribution window has passed; those of other variants are
            left out.
        confidence: of every interval.
        plan: of the experiment; none: open end.
        closed_until_ms: the outcomes of all impressions before this event time are known; none:
            there is no verdict.

    >>> shown = [Exposure(str(user), "ab"[user % 2], 0.5, user % 3 == 0) for user in range(60)]
    >>> result = report("demo", {"a": 0.5, "b": 0.5}, shown)
    >>> [(v.name, v.ctr.clicks, v.ctr.exposures) for v in result.variants], result.ratio.alarm
    ([('a', 10, 30), ('b', 10, 30)], False)
    """
    tallies = {variant: _Tally() for variant in shares}
    kept = [exposure for exposure in exposures if exposure.variant in tallies]
    for exposure in kept:
        tallies[exposure.variant].add(exposure)
    variants = tuple(
        VariantReport(
            variant,
            shares[variant],
            click_rate(list(t.shown.values()), [t.clicked[u] for u in t.shown], confidence),
            as_served_auc(t.scores, t.labels),
            len(t.scores),
        )
        for variant, t in tallies.items()
    )
    control = variants[0]
    found = (difference(v.name, v.ctr, control.name, control.ctr, confidence) for v in variants[1:])
    ratio = ratio_check({v.name: v.ctr.users for v in variants}, shares)
    taken: tuple[Verdict, ...] = ()
    if closed_until_ms is not None:
        taken = verdicts(shares, first_day(kept, closed_until_ms), plan or Plan(), ratio)
    return ExperimentReport(
        name,
        confidence,
        variants,
        tuple(d for d in found if d is not None),
        ratio,
        tuple(_doubts(tallies, shares, ratio)),
        taken,
    )


def _doubts(
    tallies: Mapping[str, _Tally], shares: Mapping[str, float], ratio: RatioCheck
) -> Iterable[str]:
    few = [v for v, t in tallies.items() if len(t.shown) < MIN_USERS and shares[v] > 0]
    if few and len(tallies) > 1:
        yield (
            f"fewer than {MIN_USERS} users in {', '.join(few)}: too few to tell a difference from"
            " chance"
        )
    if ratio.alarm:
        yield (
            f"sample ratio mismatch (p = {ratio.p_value:.2g}): users per variant do not fit the"
            " shares, so do not trust the differences; look for variants that fail or log less"
        )
    for variant, tally in tallies.items():
        if other := sorted(tally.propensities - {shares[variant]}):
            yield (
                f"variant {variant!r} was also shown with share {', '.join(map(str, other))}: the"
                " shares changed on the way; set start in the experiment file to the last change"
            )
    seen: dict[str, int] = defaultdict(int)
    for tally in tallies.values():
        for user in tally.shown:
            seen[user] += 1
    if moved := sum(count > 1 for count in seen.values()):
        yield f"{moved} users saw more than one variant: they count once in each"
