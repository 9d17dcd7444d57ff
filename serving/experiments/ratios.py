"""Ratios of sums over users, such as clicks over impressions, with their variance.

Users are what is assigned, and one user sees many impressions whose outcomes resemble each other:
users count as independent, impressions do not. The variance of a ratio of sums is then that of the
delta method (Deng, Knoblich, Lu: "Applying the delta method in metric analytics", KDD 2018), which
equals the cluster-robust one with users as clusters. Six sums a variant are all that is needed, so
that the figures of many looks come from running totals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]

# below this the normal approximation of a variant's mean is not to be relied on: no interval
FEWEST_USERS = 30


@dataclass(frozen=True, slots=True)
class RatioSums:
    """Sums over the users of one variant.

    Attributes:
        users: how many.
        x: sum of the denominators (impressions); xx: of their squares.
        y: sum of the numerators (clicks); yy: of their squares.
        xy: sum of the products.
    """

    users: int
    x: float
    y: float
    xx: float
    yy: float
    xy: float

    @classmethod
    def of(cls, denominators: _Floats, numerators: _Floats) -> RatioSums:
        """The sums of users' denominators [n] and numerators [n].

        >>> RatioSums.of(np.array([1.0, 3.0]), np.array([1.0, 1.0])).value
        0.5
        """
        x, y = denominators, numerators
        return cls(len(x), float(x.sum()), float(y.sum()), float(x @ x), float(y @ y), float(x @ y))

    @property
    def value(self) -> float:
        """The ratio; NaN with an empty denominator."""
        return self.y / self.x if self.x else math.nan

    @property
    def variance(self) -> float:
        """The ratio's variance; NaN with fewer than two users or an empty denominator."""
        if self.users < 2 or not self.x:
            return math.nan
        r = self.value
        # residuals y - r x have mean 0
        squares = max(0.0, self.yy - 2 * r * self.xy + r * r * self.xx)
        return squares * self.users / (self.users - 1) / self.x**2


@dataclass(frozen=True, slots=True)
class RatioDifference:
    """A variant's ratio minus the control's, and its standard error."""

    value: float
    error: float
    users: int


def ratio_difference(variant: RatioSums, control: RatioSums) -> RatioDifference | None:
    """The difference of two ratios; None where the users are too few for an interval."""
    if min(variant.users, control.users) < FEWEST_USERS:
        return None
    variance = variant.variance + control.variance
    if not math.isfinite(variance) or variance <= 0:
        return None
    return RatioDifference(
        variant.value - control.value, math.sqrt(variance), variant.users + control.users
    )
