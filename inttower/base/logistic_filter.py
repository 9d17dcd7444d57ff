"""Logistic filters over the same inputs, averaged in logit space.

Each is a closed-form learner (:mod:`inttower.base.filter_kernels`); their average is linear too, so
one vector of weights is served.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inttower.base.filter_kernels import LabelledRows, WeightBelief, correct_rows, learn_rows
from inttower.core.contract import State

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# how fast a filter that predicts worse loses its say: exp(-RATE · nats)
RATE = 0.1
# of the intercept: a rate that is known to a factor of e
_INTERCEPT_VARIANCE = 1.0


@dataclass(frozen=True, slots=True)
class FilterConfig:
    """One filter.

    Args:
        columns: inputs that it reads, the intercept (0) first.
        ridge: precision of each weight before any row, but for the intercept's.
    """

    columns: Ints
    ridge: float


class FilterAverage:
    """Several filters of one stream.

    Args:
        filters: what each reads.
        inputs: k, inputs of a row.
        base_logit: logit of the rate expected before any row.
    """

    def __init__(self, filters: Sequence[FilterConfig], inputs: int, base_logit: float) -> None:
        self.filters = tuple(filters)
        self.inputs = inputs
        self.losses = np.zeros(len(filters))
        self._w, self._P = [], []
        for one in filters:
            k = len(one.columns)
            w, variance = np.zeros(k, np.float32), np.full(k, 1 / one.ridge, np.float32)
            w[0], variance[0] = base_logit, _INTERCEPT_VARIANCE
            self._w.append(w)
            self._P.append(np.diag(variance))

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """The weight of each filter, adding up to 1."""
        raw = np.exp(-RATE * (self.losses - self.losses.min()))
        return np.asarray(raw / raw.sum())

    @property
    def weights(self) -> Floats:
        """The average's weights, float32 [k]: the logit of a row x is x·weights."""
        out = np.zeros(self.inputs)
        for share, one, w in zip(self.shares, self.filters, self._w, strict=True):
            out[one.columns] += share * w
        return out.astype(np.float32)

    def logits(self, x: Floats) -> Floats:
        """Logits [n] of rows [n, k]."""
        return np.asarray(x @ self.weights)

    def logits_of(self, number: int, x: Floats) -> Floats:
        """Logits [n] of one of the filters."""
        return np.asarray(x[:, self.filters[number].columns] @ self._w[number])

    def learn(self, x: Floats, labels: Floats, weights: Floats, moments: Ints) -> Floats:
        """Learn rows, a moment at a time; the average's logits [n] before each moment.

        Args:
            x: inputs [n, k].
            labels: 0/1 [n].
            weights: [n], over 0.
            moments: first row of each moment and, last, n.
        """
        shares = self.shares
        mean = np.zeros(len(x))
        for at, one in enumerate(self.filters):
            before = np.empty(len(x), np.float32)
            belief = WeightBelief(self._w[at], self._P[at], one.columns)
            learn_rows(belief, LabelledRows(x, labels, weights, moments), before)
            z = before.astype(np.float64)
            mean += shares[at] * z
            self.losses[at] += float((weights * (np.logaddexp(0, z) - labels * z)).sum())
        return mean.astype(np.float32)

    def correct(self, x: Floats, weights: Floats) -> None:
        """Rows learnt as 0 that turned out 1."""
        for at, one in enumerate(self.filters):
            correct_rows(WeightBelief(self._w[at], self._P[at], one.columns), x, weights)

    def state(self) -> State:
        """All that was learnt."""
        state: State = {"losses": self.losses.copy()}
        for at, (w, P) in enumerate(zip(self._w, self._P, strict=True)):
            state[f"w{at}"], state[f"P{at}"] = w.copy(), P.copy()
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for filters of the same shape."""
        arrays: dict[str, npt.NDArray[Any]] = {k: np.array(v) for k, v in state.items()}
        self.losses = arrays["losses"]
        for at in range(len(self.filters)):
            self._w[at], self._P[at] = arrays[f"w{at}"], arrays[f"P{at}"]
