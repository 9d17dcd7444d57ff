"""Intervals that stay true for a reader who looks more than once.

Three ways to put an interval round an estimate with a known standard error:

- **fixed horizon**: the usual one. Right for one look at a time fixed before; 20 looks at it raise
  false alarms from 5 % to about 25 %.
- **group sequential**: for a number of looks planned before. The error is spent over the looks by
  the O'Brien-Fleming type function of Lan and DeMets ("Discrete sequential boundaries for clinical
  trials", Biometrika 1983); the bounds come from the recursive integration of Armitage, McPherson
  and Rowe (1969). Costs little power: the last look is nearly the fixed one.
- **anytime-valid**: for any number of looks at any times, an asymptotic confidence sequence
  (Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas, arXiv 2103.06476, theorem 2.2). Wider.
"""

from __future__ import annotations

import math
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.optimize import brentq

_Floats = NDArray[np.float64]

# nodes of the integration over one look's values: the bounds are then right to four digits
_NODES = 401


def error_spent(fraction: float, alpha: float) -> float:
    """Two-sided error that is spent at an information fraction, of O'Brien-Fleming type.

    >>> [round(error_spent(t, 0.05), 5) for t in (0.25, 0.5, 1.0)]
    [1e-05, 0.00305, 0.05]
    """
    # half of it to each side
    z = float(stats.norm.isf(alpha / 4))
    return float(4 * stats.norm.sf(z / math.sqrt(fraction)))


@lru_cache(maxsize=256)
def group_sequential_bounds(fractions: tuple[float, ...], alpha: float = 0.05) -> list[float]:
    """The bound on the absolute value of z at each look, two-sided.

    Args:
        fractions: information at each look as a share of the planned one: rising, in (0, 1].
        alpha: the error over all looks together.

    Raises:
        ValueError: the fractions do not rise within (0, 1].

    >>> [round(z, 3) for z in group_sequential_bounds((0.2, 0.4, 0.6, 0.8, 1.0))]
    [4.877, 3.357, 2.68, 2.29, 2.031]
    """
    rising = all(a < b for a, b in zip([0.0, *fractions], fractions, strict=False))
    if not rising or (fractions and fractions[-1] > 1 + 1e-9):
        raise ValueError(f"information fractions {list(fractions)} must rise within (0, 1]")
    bounds: list[float] = []
    # the density of the running sum (a Brownian motion) on paths that have crossed no bound yet
    grid: _Floats = np.zeros(1)
    mass: _Floats = np.ones(1)
    before = spent = 0.0
    for fraction in fractions:
        step = math.sqrt(fraction - before)
        share = error_spent(min(fraction, 1.0), alpha) - spent

        root = math.sqrt(fraction)
        excess = partial(_excess, root=root, step=step, paths=(grid, mass), share=share)
        # beyond 12 standard deviations nothing is left to spend
        bound = float(brentq(excess, 0.0, 12.0)) if excess(12.0) < 0 else 12.0
        bounds.append(bound)
        edge = bound * root
        inside = np.linspace(-edge, edge, _NODES)
        density = stats.norm.pdf((inside[:, None] - grid[None, :]) / step) / step @ mass
        weights = np.full(_NODES, inside[1] - inside[0])
        weights[[0, -1]] /= 2
        grid, mass = inside, density * weights
        before, spent = fraction, error_spent(min(fraction, 1.0), alpha)
    return bounds


def _excess(
    z: float, *, root: float, step: float, paths: tuple[_Floats, _Floats], share: float
) -> float:
    """The probability that a path first crosses ±z at this look, less what may be spent."""
    grid, mass = paths
    upper = stats.norm.sf((z * root - grid) / step)
    lower = stats.norm.cdf((-z * root - grid) / step)
    return float(mass @ (upper + lower)) - share


def anytime_factor(units: float, planned: float, alpha: float = 0.05) -> float:
    """Standard errors that an anytime-valid interval reaches to each side of the estimate.

    Args:
        units: independent units (users) that the estimate is made of.
        planned: the number of units at which the interval shall be tightest.
        alpha: the error over all looks at all times.

    >>> round(anytime_factor(1000, 1000), 2), round(anytime_factor(50, 1000), 2)
    (3.04, 4.72)
    """
    # the rho of the paper's appendix B.2 that is best at `planned`
    rho2 = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / planned
    grown = units * rho2 + 1
    return math.sqrt(2 * grown / (units * rho2) * math.log(math.sqrt(grown) / alpha))
