"""numba loops of the logistic filter with full covariance.

The belief about the weights is N(w, P). A row (x, y) of weight a moves the mean along P x to the
maximum of the posterior, which for one row is a single number t:

    t = y − σ(z + a·h·t)      z = w·x      h = xᵀ P x
    w ← w + a·t · P x         P ← P − v / (1 + v h) · (P x)(P x)ᵀ,   v = a·p(1 − p) at the new mean

An extended-Kalman step takes p at the old mean, and a first click at a rate of one in a thousand
then throws the weights far beyond what the click can say.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inttower.core.kernels import kernel, relaxed_kernel

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# a direction that rounding has emptied: no certainty beyond this
_LEAST = np.float32(0)


@kernel
def sigmoid(z: float) -> float:
    """1 / (1 + e^-z)."""
    return float(1.0 / (1.0 + np.exp(-z)) if z >= 0 else np.exp(z) / (1.0 + np.exp(z)))


@kernel
def implicit_residual(z: float, reach: float, target: float) -> tuple[float, float]:
    """T = target − σ(z + reach·t), and σ there: Newton steps, kept between bounds by halving."""
    low, high = target - 1.0, target
    t = target - sigmoid(z)
    for _ in range(30):
        p = sigmoid(z + reach * t)
        gap = target - p - t
        if gap > 0:
            low = t
        else:
            high = t
        if abs(gap) < 1e-7:
            break
        step = t + gap / (1.0 + reach * p * (1.0 - p))
        t = step if low < step < high else 0.5 * (low + high)
    return t, sigmoid(z + reach * t)


@relaxed_kernel
def times_symmetric(P: Floats, x: Floats, out: Floats) -> float:
    """Out = P x, and xᵀ P x."""
    k = len(x)
    total = np.float32(0)
    for i in range(k):
        row = P[i]
        some = np.float32(0)
        for j in range(k):
            some += row[j] * x[j]
        out[i] = some
        total += some * x[i]
    return float(total)


@relaxed_kernel
def less_outer(P: Floats, v: Floats) -> None:
    """P −= v vᵀ; what was symmetric stays so to the last bit."""
    k = len(v)
    for i in range(k):
        row = P[i]
        some = v[i]
        for j in range(k):
            row[j] -= some * v[j]


@relaxed_kernel
def dot(w: Floats, x: Floats) -> float:
    """w·x."""
    total = np.float32(0)
    for j in range(len(x)):
        total += w[j] * x[j]
    return float(total)


class WeightBelief(NamedTuple):
    """Mean w [k] and covariance P [k, k] of the weights of inputs ``columns`` [k]."""

    w: Floats
    P: Floats
    columns: Ints


class LabelledRows(NamedTuple):
    """Rows to learn.

    Attributes:
        x: all inputs [n, K].
        labels: 0/1 [n].
        weights: [n], over 0.
        moments: first row of each moment and, last, n.
    """

    x: Floats
    labels: Floats
    weights: Floats
    moments: Ints


@kernel
def learn_rows(belief: WeightBelief, rows: LabelledRows, before: Floats) -> None:
    """Predict each moment's rows into ``before`` [n], then learn them one by one."""
    w, P, columns = belief
    x, labels, weights, moments = rows
    k = len(columns)
    mine, v = np.empty(k, np.float32), np.empty(k, np.float32)
    for m in range(len(moments) - 1):
        for row in range(moments[m], moments[m + 1]):
            for j in range(k):
                mine[j] = x[row, columns[j]]
            before[row] = dot(w, mine)
        for row in range(moments[m], moments[m + 1]):
            for j in range(k):
                mine[j] = x[row, columns[j]]
            h = max(times_symmetric(P, mine, v), _LEAST)
            z = dot(w, mine)
            t, p = implicit_residual(z, weights[row] * h, labels[row])
            curve = weights[row] * p * (1.0 - p)
            pull = np.float32(weights[row] * t)
            for j in range(k):
                w[j] += pull * v[j]
            share = np.float32(np.sqrt(curve / (1.0 + curve * h)))
            for j in range(k):
                v[j] *= share
            less_outer(P, v)


@kernel
def correct_rows(belief: WeightBelief, x: Floats, weights: Floats) -> None:
    """Rows that were learnt as 0 and are 1: the mean moves, for P knows no label.

    What is believed changes by the factor e^(a·z): the pull is a, less what the row's own
    probability gains on the way.
    """
    w, P, columns = belief
    k = len(columns)
    mine, v = np.empty(k, np.float32), np.empty(k, np.float32)
    for row in range(len(x)):
        for j in range(k):
            mine[j] = x[row, columns[j]]
        h = max(times_symmetric(P, mine, v), _LEAST)
        z = dot(w, mine)
        t, _ = implicit_residual(z, weights[row] * h, 1.0 + sigmoid(z))
        pull = np.float32(weights[row] * t)
        for j in range(k):
            w[j] += pull * v[j]
