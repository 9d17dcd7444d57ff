"""Mixing weights: how much each part of the score counts, updated by the stream.

They are a posterior over a few combinations of the parts.

A combination is a weight for each part; the score is the posterior mean of the combinations'
logits, so it is a weighted sum of the parts too. After each moment every combination pays its own
log loss. A small share of the mass flows back to the prior at each row (Herbster and Warmuth's
fixed share): whatever has been right for a million rows can lose its say within a hundred.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from inttower.core.contract import State

Doubles = npt.NDArray[np.float64]

# of the mass, back to the prior, each row: costs 1e-5 · ln(1/prior) nats a row while all is well
_BACK = 1e-5
# nats that a part costs which is no number
_WRONG = 100.0
# parts of a stacked score
BASE, STACK, NETWORK = 0, 1, 2
# what a network may add to the stack, in parts of its logit
_SHARES = (0.25, 0.5, 0.75, 1.0)


class MixingWeights:
    """The posterior.

    Args:
        combinations: [K, parts].
        prior: [K], adding up to 1.
    """

    def __init__(self, combinations: Doubles, prior: Doubles) -> None:
        self.combinations = combinations
        self.prior = prior
        self.log_mass = np.log(prior)

    @property
    def mass(self) -> Doubles:
        """The posterior, [K]."""
        raw = np.exp(self.log_mass - self.log_mass.max())
        return np.asarray(raw / raw.sum())

    @property
    def weights(self) -> Doubles:
        """The weight of each part, [parts]."""
        return np.asarray(self.mass @ self.combinations)

    def update(self, parts: Doubles, labels: Doubles, weights: Doubles) -> None:
        """Rows whose labels are known.

        Args:
            parts: logits [n, parts], as they were predicted.
            labels: 0/1 [n].
            weights: [n]; a negative one takes a loss back (a correction).
        """
        bad = ~np.isfinite(parts)
        z = np.where(bad, 0.0, parts) @ self.combinations.T  # [n, K]
        loss = np.logaddexp(0, z) - labels[:, None] * z
        # a part that is no number is as wrong as can be
        loss += _WRONG * (bad.astype(np.float64) @ (self.combinations != 0).T.astype(np.float64))
        self.log_mass = self.log_mass - (loss * weights[:, None]).sum(0)
        mass = self.mass
        back = 1 - (1 - _BACK) ** len(z)
        self.log_mass = np.log((1 - back) * mass + back * self.prior)

    def state(self) -> State:
        """All of it."""
        return {"log_mass": self.log_mass.copy()}

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`."""
        self.log_mass = np.array(state["log_mass"], np.float64)


def stacked_mixing() -> MixingWeights:
    """Of a base, a stack (base and user state together) and a network as a residual on it.

    >>> stacked_mixing().weights.round(3).tolist()
    [0.9, 0.1, 0.031]
    """
    rows = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], *([0.0, 1.0, share] for share in _SHARES)]
    prior = np.array([0.90, 0.05, *(0.05 / len(_SHARES) for _ in _SHARES)])
    return MixingWeights(np.array(rows), prior)


def gate(base: Doubles, state: Doubles, labels: Doubles) -> tuple[float, float]:
    """Whether a user state takes part, and with which weights: (of the base, of the state).

    A posterior over pairs of weights on rows that neither has learnt. The rivals of the state are
    the base shrunk towards the rate: what only tames the base must not pass for knowledge of users.

    Args:
        base: logits [n].
        state: logits [n].
        labels: 0/1 [n].
    """
    rate = np.clip(labels.mean(), 1e-6, 1 - 1e-6)
    constant = np.full(len(base), np.log(rate / (1 - rate)))
    grid = (0.0, 0.25, 0.5, 0.75, 1.0)
    shrunk = [(a, 0.0, 1 - a) for a in grid if a < 1]
    joint = [(a, b, 0.0) for a in grid for b in grid if b > 0 and 0.75 <= a + b <= 1.5]
    pairs = [(1.0, 0.0, 0.0), *shrunk, *joint]
    # of a state that says nothing, several joint pairs are one shrunk one: they weigh less
    prior = np.repeat([0.95, 0.035 / len(shrunk), 0.015 / len(joint)], [1, len(shrunk), len(joint)])
    mixing = MixingWeights(np.array(pairs), prior)
    mixing.log_mass -= [_loss(a * base + b * state + c * constant, labels) for a, b, c in pairs]
    mass = mixing.mass
    open_ = np.array([b > 0 for _, b, _ in pairs])
    if mass[open_].sum() <= 0.5:
        return 1.0, 0.0
    weights = mass[open_] @ mixing.combinations[open_] / mass[open_].sum()
    return float(weights[0]), float(weights[1])


def _loss(z: Doubles, labels: Doubles) -> float:
    return float((np.logaddexp(0, z) - labels * z).sum())
