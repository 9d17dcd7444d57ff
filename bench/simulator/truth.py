"""The truth of a simulated world: how good a ranking is, and how good it could be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

from bench.simulator.behaviour import Flags, keep_shown
from bench.simulator.draws import Floats, Ints
from bench.simulator.world import SimulatedRequests, SimulatedWorld
from inttower.evaluate import auc


@dataclass(frozen=True, slots=True)
class ShownTruth:
    """Figures of what was shown.

    Attributes:
        shown: impressions.
        clicks: how many of them were clicked.
        best_auc: AUC of the true probabilities against what was clicked: nothing predicts better,
            but by luck. None without both outcomes.
        best_auc_unplaced: the same of the probabilities if looked at, which know no position.
        served_auc: AUC of the served scores; None if nothing was scored.
        predicted_over_true: sum of served scores over that of the true probabilities as shown.
        predicted_over_true_unplaced: the same against the probabilities if looked at.
        logit_correlation: of served and true logits, over scored impressions.
    """

    shown: int
    clicks: int
    best_auc: float | None
    best_auc_unplaced: float | None
    served_auc: float | None
    predicted_over_true: float | None
    predicted_over_true_unplaced: float | None
    logit_correlation: float | None


def truth_of_shown(
    probability: Floats, seen_probability: Floats, clicked: Flags, scores: Floats
) -> ShownTruth:
    """Compare served scores with the truth.

    Args:
        probability: float64 [n], of a click if the item is looked at.
        seen_probability: float64 [n], of a click where it was shown.
        clicked: bool [n].
        scores: float64 [n], served predictions; NaN where the system gave none.

    >>> p = np.array([0.9, 0.1]); y = np.array([True, False])
    >>> truth_of_shown(p, p / 2, y, p).served_auc
    1.0
    """
    scored = np.isfinite(scores)
    both = len(clicked) > 0 and 0 < clicked.sum() < len(clicked)
    both_scored = scored.any() and 0 < clicked[scored].sum() < scored.sum()
    correlation = None
    if scored.sum() > 1:
        of_score = logit(np.clip(scores[scored], 1e-9, 1 - 1e-9))
        of_truth = logit(probability[scored])
        if of_score.std() > 0 and of_truth.std() > 0:
            correlation = float(np.corrcoef(of_score, of_truth)[0, 1])
    return ShownTruth(
        shown=len(clicked),
        clicks=int(clicked.sum()),
        best_auc=auc(clicked, seen_probability) if both else None,
        best_auc_unplaced=auc(clicked, probability) if both else None,
        served_auc=auc(clicked[scored], scores[scored]) if both_scored else None,
        predicted_over_true=_ratio(scores[scored], seen_probability[scored]),
        predicted_over_true_unplaced=_ratio(scores[scored], probability[scored]),
        logit_correlation=correlation,
    )


@dataclass(frozen=True, slots=True)
class RankingTruth:
    """Expected clicks of rankings of the same candidates, [n] each.

    A ranking is worth the clicks that its first items would get if they were shown in its order.

    Attributes:
        served: of the ranking that was served.
        best: of the best order.
        random: the mean over all orders.
    """

    served: Floats
    best: Floats
    random: Floats

    @property
    def regret(self) -> Floats:
        """Expected clicks that the served ranking gives away, [n]."""
        return self.best - self.served


def truth_of_rankings(
    world: SimulatedWorld, requests: SimulatedRequests, candidates: Ints, served: Ints
) -> RankingTruth:
    """What rankings are worth.

    Args:
        world: of the requests.
        requests: n of them.
        candidates: int64 [n, m], rows of the catalogue.
        served: int64 [n, k], the served ones, best first; k is at least what is shown.
    """
    shown = world.settings.slate.shown
    seen = world.examination(np.arange(shown))
    of_all = expit(world.logits(requests, candidates))
    of_served = expit(world.logits(requests, served[:, :shown]))
    best = -np.sort(-of_all, axis=1)[:, :shown]
    return RankingTruth(
        served=of_served @ seen, best=best @ seen, random=of_all.mean(axis=1) * seen.sum()
    )


def clicks_as_shown(world: SimulatedWorld, requests: SimulatedRequests, returned: Ints) -> Floats:
    """Expected clicks [n] of what the heavy ranker would show of rankings [n, k], best first."""
    kept = keep_shown(world, requests, returned, world.logits(requests, returned))
    items = np.take_along_axis(returned, kept, axis=1)
    seen = world.examination(np.arange(items.shape[1]))
    expected: Floats = expit(world.logits(requests, items)) @ seen
    return expected


def mean_and_error(values: Floats, users: Ints) -> tuple[float, float]:
    """The mean of values [n] and its standard error, with users [n] as clusters."""
    if not len(values):
        return float("nan"), float("nan")
    mean = float(values.mean())
    sums = np.bincount(users, values - mean)
    clusters = len(np.unique(users))
    if clusters < 2:
        return mean, float("nan")
    return mean, float(np.sqrt((sums**2).sum() * clusters / (clusters - 1)) / len(values))


def _ratio(scores: Floats, probability: Floats) -> float | None:
    return float(scores.sum() / probability.sum()) if len(scores) else None
