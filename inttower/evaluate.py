"""Evaluation figures over arrays of logits and labels: AUC, GAUC, log loss, calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import isnan

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from inttower.errors import SpecError

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of one model over some rows; None where the rows do not define one.

    Attributes:
        rows: how many rows.
        positives: how many of them were clicked.
        auc: area under the ROC curve, over all pairs of rows.
        logloss: log loss, the mean of −log p(label), natural logarithm.
        calibration: sum of predicted probabilities over the number of positives.
        gauc: AUC inside each user, mean over users with both labels, weighted by their rows.
    """

    rows: int
    positives: int
    auc: float | None = None
    logloss: float | None = None
    calibration: float | None = None
    gauc: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """A form that JSON can hold."""
        return asdict(self)


def auc(labels: Array, logits: Array) -> float:
    """Area under the ROC curve over all pairs of rows; NaN if all labels [n] are equal.

    >>> auc(np.array([1, 0, 1, 0]), np.array([2.0, 1.0, 0.0, -1.0]))
    0.75
    """
    _check(labels, logits)
    return gauc(labels, logits, np.zeros(len(labels), np.int8))


def logloss(labels: Array, logits: Array) -> float:
    """Log loss: the mean of −log p(label), natural logarithm; exact for logits of any size.

    >>> round(logloss(np.array([1, 0]), np.array([0.0, -1000.0])), 6)
    0.346574
    """
    _check(labels, logits)
    z, y = logits.astype(np.float64), labels.astype(np.float64)
    return float(np.mean(np.logaddexp(0, z) - y * z))


def calibration(labels: Array, logits: Array) -> float:
    """Predicted clicks over observed ones; NaN without a click.

    >>> calibration(np.array([1, 0]), np.array([0.0, 0.0]))
    1.0
    """
    _check(labels, logits)
    clicks = float(labels.astype(np.float64).sum())
    return float(expit(logits.astype(np.float64)).sum() / clicks) if clicks else float("nan")


def gauc(labels: Array, logits: Array, groups: Array) -> float:
    """AUC inside each group (a user), mean weighted by the group's rows; NaN if none has one.

    Groups whose labels are all equal have no AUC and no weight.

    Args:
        labels: 0/1 [n].
        logits: [n]; equal ones count half.
        groups: [n], of any type that sorts.

    >>> users = np.array(["a", "a", "b", "b", "c"])
    >>> gauc(np.array([1, 0, 0, 1, 1]), np.array([2.0, 1.0, 5.0, 4.0, 9.0]), users)
    0.5
    """
    _check(labels, logits)
    _check(labels, groups)
    _, group = np.unique(groups, return_inverse=True)
    order = np.lexsort((logits, group))
    g, z, y = group[order], logits[order], labels[order].astype(np.float64)
    n = np.bincount(g)
    # 1, 2, … inside each group; rows of equal logit share the mean of their ranks
    rank = np.arange(1, len(g) + 1) - np.repeat(np.cumsum(n) - n, n)
    starts = np.flatnonzero(np.r_[True, (g[1:] != g[:-1]) | (z[1:] != z[:-1])])
    lengths = np.diff(np.r_[starts, len(g)])
    shared = np.repeat(rank[starts] + (lengths - 1) / 2, lengths)
    clicks = np.bincount(g, y)
    pairs = clicks * (n - clicks)
    both = pairs > 0
    if not both.any():
        return float("nan")
    # Mann–Whitney: the sum of the clicked rows' ranks, less its smallest possible value
    wins = np.bincount(g, shared * y) - clicks * (clicks + 1) / 2
    return float(np.average(wins[both] / pairs[both], weights=n[both]))


def figures(logits: Array, labels: Array, groups: Array) -> Figures:
    """All figures of logits [n] against labels 0/1 [n]; the groups [n] are the users.

    >>> z, y = np.array([2, 1, 0, -1], np.float32), np.array([1, 0, 1, 0], np.uint8)
    >>> f = figures(z, y, groups=np.array([1, 1, 2, 2], np.int32))
    >>> f.auc, f.gauc, round(f.logloss, 4), round(f.calibration, 4)
    (0.75, 1.0, 0.6116, 1.1904)
    """
    rows, positives = len(labels), int(labels.sum())
    if not rows:
        return Figures(0, 0)
    measured = {
        "auc": auc(labels, logits),
        "logloss": logloss(labels, logits),
        "gauc": gauc(labels, logits, groups),
        "calibration": calibration(labels, logits),
    }
    defined = {name: value for name, value in measured.items() if not isnan(value)}
    return Figures(rows, positives, **defined)


def _check(labels: Array, other: Array) -> None:
    if labels.shape != other.shape or labels.ndim != 1 or not len(labels):
        raise SpecError(
            f"labels of shape {labels.shape} and {other.shape}: give flat arrays of equal length,"
            " with at least one row"
        )
