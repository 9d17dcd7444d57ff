"""Figures of order within requests: list AUC, MRR, NDCG@10.

GAUC over a user's whole history does not measure order where the user's own live rate is an input.
Within a request the user's terms are equal for all rows and cancel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_TOP = 10


def requests_of(ts: Ints, users: npt.NDArray[np.int32]) -> Ints:
    """Number of the request of each row [n]: rows of one user and millisecond are one.

    >>> requests_of(np.array([1, 1, 1, 2]), np.array([5, 5, 6, 6], np.int32)).tolist()
    [0, 0, 1, 2]
    """
    pairs = np.stack([ts, users.astype(np.int64)], 1)
    return np.asarray(np.unique(pairs, axis=0, return_inverse=True)[1]).reshape(-1)


def list_figures(logits: Floats, labels: Labels, requests: Ints) -> dict[str, float | int | None]:
    """Mean over requests that have both labels of AUC, MRR and NDCG@10; None without any.

    Equal logits share their ranks. With labels that are independent of the logits the AUC is .5.

    >>> z, y = np.array([3, 1, 2], np.float32), np.array([0, 1, 0], np.uint8)
    >>> found = list_figures(z, y, np.zeros(3, np.int64))
    >>> found["list_auc"], round(found["mrr"], 3), round(found["ndcg10"], 3)
    (0.0, 0.333, 0.5)
    """
    order = np.argsort(requests, kind="stable")
    bounds = np.flatnonzero(np.diff(requests[order])) + 1
    found = []
    for rows in np.split(order, bounds):
        y = labels[rows] > 0
        if 0 < y.sum() < len(y):
            found.append(_of_one(logits[rows], y))
    if not found:
        return {"lists": 0, "list_auc": None, "mrr": None, "ndcg10": None}
    auc, mrr, ndcg = np.mean(found, axis=0).tolist()
    return {"lists": len(found), "list_auc": auc, "mrr": mrr, "ndcg10": ndcg}


def _of_one(z: Floats, y: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    place = rankdata(-z)  # from 1 on, means of ties
    clicked, others = int(y.sum()), int((~y).sum())
    worst = clicked * others + clicked * (clicked + 1) / 2
    auc = (worst - place[y].sum()) / (clicked * others)
    gains = np.where(place[y] <= _TOP, 1 / np.log2(1 + place[y]), 0).sum()
    best = (1 / np.log2(2 + np.arange(min(clicked, _TOP)))).sum()
    return float(auc), float(1 / place[y].min()), float(gains / best)
