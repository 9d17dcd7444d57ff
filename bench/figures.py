"""The figures of predictions, in a form that JSON can hold."""

from __future__ import annotations

from math import isnan

import numpy as np
from numpy.typing import NDArray

from inttower.core.batch import FloatArray
from inttower.evaluate import auc, calibration, gauc, logloss

Figures = dict[str, float | int | None]


def figures(logits: FloatArray, labels: NDArray[np.uint8], users: NDArray[np.int32]) -> Figures:
    """AUC, log loss, GAUC and calibration of logits [n]; None where the rows do not define one.

    >>> z, y = np.array([2, 1, 0, -1], np.float32), np.array([1, 0, 1, 0], np.uint8)
    >>> found = figures(z, y, users=np.array([1, 1, 2, 2], np.int32))
    >>> found["rows"], found["auc"], found["gauc"]
    (4, 0.75, 1.0)
    """
    found: Figures = {"rows": len(labels), "positives": int(labels.sum())}
    if not len(labels):
        return found | dict.fromkeys(("auc", "logloss", "gauc", "calibration"))
    measured = {
        "auc": auc(labels, logits),
        "logloss": logloss(labels, logits),
        "gauc": gauc(labels, logits, users),
        "calibration": calibration(labels, logits),
    }
    return found | {name: None if isnan(value) else value for name, value in measured.items()}
