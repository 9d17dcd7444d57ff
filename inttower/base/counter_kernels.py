"""numba loops of the live counters: a hash index over dense rows, and the facts of a row.

A row counts one key: an item, a user, a value of an attribute, or a pair of them. It holds

- float32 [VALUES]: impressions n, actions c, residual Σ (y − rate of the item), three decayed n,
  three decayed c, and c over the last ~16 and ~64 impressions;
- int64 [TIMES]: times in ms of the last impression, the last action, and the one that the decayed
  counts were last brought up to.

Decayed counts are decayed to the current time when they are read, so that no tick is needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inttower.core.kernels import kernel

Values = npt.NDArray[np.float32]
Keys = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]
Index = npt.NDArray[np.int32]

HALF_LIVES = 3
VALUES = 11  # n, c, residual, 3 decayed n, 3 decayed c, 2 recent c
TIMES = 3  # last impression, last action, decayed up to
NEVER = -1
EMPTY_KEY = 0
N, C, RESIDUAL, DECAYED_N, DECAYED_C, RECENT_C = 0, 1, 2, 3, 6, 9
SHOWN, ACTED, DECAYED = 0, 1, 2
# impressions over which the recent rates look back
RECENT = (16.0, 64.0)
# strengths of a slot's rates: all time, three decayed, two recent
RATES = 1 + HALF_LIVES + 2
PROBE = 2 * RATES + 3
# seconds since something that never was: a fortnight, and no gap counts as longer
FAR = 14 * 86_400.0

# what one row says, see `describe`
LOG_N, LOG_C, LIFT, RESID, LOG_DN, LIFT_D, LIFT_R = 0, 1, 2, 3, 4, 7, 10
GAP_SHOWN, GAP_ACTED, COLD, LOG_DC = 12, 13, 14, 15
FACTS = 18


@kernel
def mixed(a: int, b: int) -> int:
    """A key of a pair of keys (splitmix64's finalizer); 0 is kept for "none"."""
    x = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b)
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return int(np.int64(x | np.uint64(1)))


@kernel
def _slot(index: Index, keys: Keys, key: int) -> int:
    """The slot of a key in the index, or the free one that it would get."""
    mask = len(index) - 1
    at = np.int64(np.uint64(key) >> np.uint64(1)) & mask
    while index[at] >= 0 and keys[index[at]] != key:
        at = (at + 1) & mask
    return int(at)


@kernel
def find(index: Index, keys: Keys, key: int) -> int:
    """The row of a key, NEVER if it has none."""
    row = index[_slot(index, keys, key)]
    return int(row) if row >= 0 else NEVER


@kernel
def place(index: Index, keys: Keys, count: int) -> None:
    """Fill an index that is all NEVER with the first ``count`` keys, which differ."""
    for row in range(count):
        index[_slot(index, keys, keys[row])] = row


@kernel
def find_or_add(index: Index, keys: Keys, count: int, key: int) -> int:
    """The row of a key; a new key gets row ``count``."""
    at = _slot(index, keys, key)
    if index[at] >= 0:
        return int(index[at])
    index[at] = count
    keys[count] = key
    return count


class TableArrays(NamedTuple):
    """A table as loops see it.

    Attributes:
        hashed: int32 [2^m], row of each slot of the hash index, NEVER where none is.
        keys: int64 [rows].
        values: float32 [rows, VALUES].
        times: int64 [rows, TIMES].
        touched: int32 [rows], the round in which an event last changed the row.
        used: int64 [2], rows in use and the round of now.
    """

    hashed: Index
    keys: Keys
    values: Values
    times: Keys
    touched: Index
    used: Keys


@kernel
def count_event(
    values: Values,
    times: Keys,
    now: int,
    half_lives: Doubles,
    change: tuple[float, float, float],
) -> None:
    """Take an event into one row; ``change``: impressions, actions, expected actions."""
    shown, acted, expected = change
    gap = max(now - times[DECAYED], 0) if times[DECAYED] > NEVER else 0
    for k in range(HALF_LIVES):
        left = 2.0 ** (-gap / half_lives[k])
        values[DECAYED_N + k] = values[DECAYED_N + k] * left + shown
        values[DECAYED_C + k] = values[DECAYED_C + k] * left + acted
    times[DECAYED] = max(times[DECAYED], now)
    values[N] += shown
    values[C] += acted
    values[RESIDUAL] += acted - expected
    for k in range(2):
        if shown > 0:
            values[RECENT_C + k] *= 1.0 - 1.0 / RECENT[k]
        values[RECENT_C + k] += acted
    at = SHOWN if shown > 0 else ACTED
    times[at] = max(times[at], now)


@kernel
def lift(n: float, c: float, strength: float, prior: float) -> float:
    """Smoothed logit of c / n, less the prior's logit."""
    positive = max(c, 0.0) + strength * prior
    negative = max(n - c, 0.0) + strength * (1.0 - prior)
    return float(np.log(positive / negative) - np.log(prior / (1.0 - prior)))


@kernel
def probe_row(values: Values, times: Keys, now: int, half_lives: Doubles, probe: Doubles) -> None:
    """A row as of ``now``, raw; probe [PROBE]: RATES pairs (n, c), residual, seconds since."""
    probe[0], probe[1] = values[N], values[C]
    gap = max(now - times[DECAYED], 0) if times[DECAYED] > NEVER else 0
    for k in range(HALF_LIVES):
        left = 2.0 ** (-gap / half_lives[k])
        probe[2 + 2 * k] = values[DECAYED_N + k] * left
        probe[3 + 2 * k] = values[DECAYED_C + k] * left
    for k in range(2):
        at = 2 + 2 * HALF_LIVES + 2 * k
        probe[at] = RECENT[k] * (1.0 - (1.0 - 1.0 / RECENT[k]) ** values[N])
        probe[at + 1] = values[RECENT_C + k]
    probe[2 * RATES] = values[RESIDUAL]
    for k in range(2):
        gone = FAR if times[k] <= NEVER else min(max(now - times[k], 0) / 1000.0, FAR)
        probe[2 * RATES + 1 + k] = gone


@kernel
def blank_probe(probe: Doubles) -> None:
    """The probe of a row that is not there."""
    probe[:] = 0.0
    probe[2 * RATES + 1] = probe[2 * RATES + 2] = FAR


@kernel
def describe(probe: Doubles, strengths: Doubles, prior: float, out: Doubles) -> None:
    """What a row says, in numbers that a linear model can use.

    Args:
        probe: [PROBE].
        strengths: [RATES], how many impressions the prior is worth.
        prior: rate of the log.
        out: [FACTS], filled.
    """
    out[LOG_N], out[LOG_C] = np.log1p(probe[0]), np.log1p(max(probe[1], 0.0))
    out[LIFT] = lift(probe[0], probe[1], strengths[0], prior)
    out[RESID] = probe[2 * RATES] / (probe[0] + strengths[0])
    for k in range(HALF_LIVES):
        n, c = probe[2 + 2 * k], probe[3 + 2 * k]
        out[LOG_DN + k] = np.log1p(n)
        out[LOG_DC + k] = np.log1p(max(c, 0.0))
        out[LIFT_D + k] = lift(n, c, strengths[1 + k], prior)
    for k in range(2):
        at = 2 + 2 * HALF_LIVES + 2 * k
        out[LIFT_R + k] = lift(probe[at], probe[at + 1], strengths[1 + HALF_LIVES + k], prior)
    out[GAP_SHOWN] = np.log1p(probe[2 * RATES + 1])
    out[GAP_ACTED] = np.log1p(probe[2 * RATES + 2])
    out[COLD] = 1.0 if probe[0] <= 0 else 0.0
