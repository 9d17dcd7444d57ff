"""Logits of one request's candidates from counters: what all share is reckoned once.

What a row of a counter adds to the logit is one number, for the filter is linear. The user's own
rows add the same to every candidate; rows that several candidates share (of a category, of the user
and a category) are looked up once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inttower.base.counter_kernels import (
    EMPTY_KEY,
    FACTS,
    NEVER,
    PROBE,
    Doubles,
    Keys,
    TableArrays,
    Values,
    describe,
    find,
    probe_row,
)
from inttower.base.input_kernels import CLIP, Places, ScalingArrays, row_key
from inttower.core.kernels import kernel

# a power of two; two keys that fall on one place are only looked up more often
_MEMO = 4096

Flags = npt.NDArray[np.bool_]


@kernel
def contribution(facts: Doubles, scaling: Doubles, places: Places, w: Values) -> float:
    """What one value's facts [FACTS] add to the logit, with weights w [k]."""
    total = 0.0
    for k in range(FACTS):
        at = places[0, k]
        if at == NEVER:
            continue
        z = min(max((facts[k] - scaling[0, k]) * scaling[1, k], -CLIP), CLIP)
        total += w[at] * z
        at = places[1, k]
        if at != NEVER:
            total += w[at] * max(z - scaling[2, k], 0.0) + w[at + 1] * max(z - scaling[3, k], 0.0)
    return total


class CandidateRows(NamedTuple):
    """One request.

    Attributes:
        keys: int64 [n, columns], the user's columns equal in all rows.
        shared: bool [S], slots that read the user's columns alone.
        now: ms.
        w: weights of the inputs, float32 [k].
    """

    keys: Keys
    shared: Flags
    now: int
    w: Values


@kernel
def score_candidates(request: CandidateRows, table: TableArrays, how: ScalingArrays) -> Values:
    """Logits float32 [n] of candidates of one user, without plain numbers."""
    keys, shared, now, w = request
    probe, facts = np.empty(PROBE), np.empty(FACTS)
    out = np.empty(len(keys), np.float32)
    memo_keys, memo = np.zeros(_MEMO, np.int64), np.empty(_MEMO)
    # what a missing row adds, by slot: most pairs of user and item have none
    cold = np.empty(len(how.slots))
    common = float(w[0])
    for slot in range(len(how.slots)):
        cold[slot] = contribution(how.cold[slot], how.scaling[slot], how.places[slot], w)
    for row in range(len(keys)):
        total = 0.0
        for slot in range(len(how.slots)):
            if shared[slot] and row > 0:
                continue
            start, stop, pair = how.slots[slot, 0], how.slots[slot, 1], how.slots[slot, 2]
            there, some = 0, 0.0
            for column in range(start, stop):
                key = row_key(keys[row], column, slot, pair)
                if key == EMPTY_KEY:
                    continue
                there += 1
                at = key >> 1 & _MEMO - 1
                if memo_keys[at] != key:
                    memo_keys[at] = key
                    held = find(table.hashed, table.keys, key)
                    if held == NEVER:
                        memo[at] = cold[slot]
                    else:
                        probe_row(table.values[held], table.times[held], now, how.half_lives, probe)
                        describe(probe, how.strengths[slot], how.prior, facts)
                        memo[at] = contribution(facts, how.scaling[slot], how.places[slot], w)
                some += memo[at]
            if there > 0 and shared[slot]:
                common += some / there
            elif there > 0:
                total += some / there
        out[row] = total
    for row in range(len(keys)):
        out[row] += common
    return out
