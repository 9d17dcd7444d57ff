"""Random numbers as hashes of what they decide, so that they do not depend on order.

Whether user 7 clicks item 3 in request 12 must not depend on earlier draws. Then the same world
gives the same answers however items are ranked, whatever the order of the requests, and however a
log is cut. So each draw is a hash of the seed, a purpose, and the keys.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
)
_LAST = np.uint64(31)
# doubles have 53 bits
_SHIFT, _HALF_STEP, _STEP = np.uint64(11), 2.0**-54, 2.0**-53


class Purpose(IntEnum):
    """What a draw decides; no two decisions share one."""

    ITEMS = 1
    USERS = 2
    SESSIONS = 3
    CANDIDATES = 4
    POLICY = 5
    HEAVY_RANKER = 6
    EXAMINE = 7
    ACT = 8
    DELAY = 9
    VALUE = 10
    NETWORK = 11
    LATE = 12
    LATE_BY = 13
    DUPLICATE = 14
    DUPLICATE_BY = 15
    LOST = 16
    CLOCK = 17
    CLOCK_BY = 18
    INTERCEPT = 19
    COMPARE = 20


def keyed(seed: int, *keys: Ints | int) -> Hashes:
    """Hashes of whole numbers that broadcast together: what several draws have in common."""
    h: Hashes = np.asarray(_scrambled(seed))
    with np.errstate(over="ignore"):  # of scalars, which alone are checked
        for key in keys:
            h = _scramble(h ^ _scramble(np.asarray(key).astype(np.uint64)))
    return h


def uniform_of(hashes: Hashes, purpose: Purpose, number: int = 0) -> Floats:
    """Uniform draws, strictly between 0 and 1, one for each hash.

    Args:
        hashes: of what the draw is about.
        purpose: what it decides.
        number: tells draws of one purpose apart.
    """
    with np.errstate(over="ignore"):
        h = _scramble(hashes ^ _scrambled(int(purpose) + (number << 8)))
    drawn: Floats = (h >> _SHIFT).astype(np.float64) * _STEP + _HALF_STEP
    return drawn


def normal_of(hashes: Hashes, purpose: Purpose, number: int = 0) -> Floats:
    """Standard normal draws, as :func:`uniform_of`."""
    drawn: Floats = ndtri(uniform_of(hashes, purpose, number))
    return drawn


def uniform(seed: int, purpose: Purpose, *keys: Ints | int) -> Floats:
    """Uniform draws for each combination of keys.

    >>> uniform(1, Purpose.ACT, np.arange(2), 7).round(4).tolist()
    [0.1462, 0.2083]
    """
    return uniform_of(keyed(seed, *keys), purpose)


def normal(seed: int, purpose: Purpose, *keys: Ints | int) -> Floats:
    """Standard normal draws, as :func:`uniform`."""
    return normal_of(keyed(seed, *keys), purpose)


def _scramble(x: Hashes) -> Hashes:
    """The output function of splitmix64 (Steele et al. 2014)."""
    x = x + _GOLDEN
    for shift, factor in _MIX:
        x = (x ^ (x >> shift)) * factor
    return x ^ (x >> _LAST)


@cache
def _scrambled(number: int) -> np.uint64:
    """The same of one number."""
    with np.errstate(over="ignore"):
        return np.uint64(_scramble(np.asarray(np.uint64(number))))
