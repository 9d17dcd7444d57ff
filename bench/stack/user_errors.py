"""Standard errors of AUC and log loss where the rows of one user are not independent.

To first order both are means of one number a row (for the AUC: how far the row's rank among the
rows of the other label is from the mean). These numbers are summed by user, and users count as
independent.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.uint8]


def influences(logits: Floats, labels: Labels) -> tuple[Doubles, Doubles]:
    """What each row moves the AUC and the log loss by, [n] each; they add up to 0."""
    z, y = logits.astype(np.float64), labels > 0
    n, positive = len(y), int(y.sum())
    losses = np.logaddexp(0, z) - y * z
    by_loss = (losses - losses.mean()) / n
    by_auc = np.zeros(n)
    if 0 < positive < n:
        ranks, own = rankdata(z), np.empty(n)
        own[y], own[~y] = rankdata(z[y]), rankdata(z[~y])
        beaten = (ranks - own)[y] / (n - positive)  # share of negatives below each positive
        above = 1 - (ranks - own)[~y] / positive  # share of positives above each negative
        by_auc[y] = (beaten - beaten.mean()) / positive
        by_auc[~y] = (above - above.mean()) / (n - positive)
    return by_auc, by_loss


def user_error(influence: Doubles, users: npt.NDArray[np.int32]) -> float:
    """Standard error of what these influences [n] add to, by the users [n] of the rows.

    >>> user_error(np.array([0.5, -0.5, 0.5, -0.5]), np.array([1, 1, 2, 2], np.int32))
    0.0
    """
    sums = np.bincount(users - users.min(), weights=influence)
    return float(np.sqrt((sums**2).sum()))


def errors(
    logits: Floats, labels: Labels, users: npt.NDArray[np.int32], other: Floats | None = None
) -> dict[str, float]:
    """Standard errors ``auc_se`` and ``logloss_se``; with ``other``, of the differences to it."""
    found = influences(logits, labels)
    if other is not None:
        second = influences(other, labels)
        found = (found[0] - second[0], found[1] - second[1])
    return {"auc_se": user_error(found[0], users), "logloss_se": user_error(found[1], users)}
