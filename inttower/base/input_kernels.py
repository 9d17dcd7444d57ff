"""numba loops from events to filter inputs: read what was known strictly before, then count.

Events come in order of time, actions before impressions of the same moment. All impressions of
one moment are read before any of them is counted.
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
    C,
    Doubles,
    Keys,
    N,
    TableArrays,
    Values,
    blank_probe,
    count_event,
    describe,
    find,
    find_or_add,
    mixed,
    probe_row,
)
from inttower.core.kernels import kernel

ALL, ITEM, USER, USER_ITEM = 0, 1, 2, 3
SHOWN_EVENT, ACTION_EVENT = 0, 1
# z-scores beyond this say no more
CLIP = 5.0

Places = npt.NDArray[np.int32]


class ScalingArrays(NamedTuple):
    """How rows become inputs, as loops see it.

    Attributes:
        slots: int32 [S, 3]: first and last + 1 column of the keys, column that they pair with.
        half_lives: [HALF_LIVES], ms.
        strengths: [S, RATES].
        prior: rate of the log.
        scaling: [S, 4, FACTS]: mean, 1 / deviation, z at the two hinges.
        places: int32 [S, 2, FACTS]: where the z-score and the first hinge go, NEVER: nowhere.
        number_scaling: [4, m], as ``scaling``.
        number_places: int32 [2, m], as ``places``.
        cold: [S, FACTS], facts of a row that is not there.
    """

    slots: Places
    half_lives: Doubles
    strengths: Doubles
    prior: float
    scaling: Doubles
    places: Places
    number_scaling: Doubles
    number_places: Places
    cold: Doubles


class EventArrays(NamedTuple):
    """Events in order of time: int32 [E], int64 [E], int64 [E, columns], float32 [E, m]."""

    what: Places
    ts: Keys
    keys: Keys
    numbers: Values


@kernel
def row_key(keys: Keys, column: int, slot: int, pair: int) -> int:
    """The key of a slot's row: of a value, or of a value and the entity that it meets."""
    base = keys[column]
    if base == EMPTY_KEY:
        return EMPTY_KEY
    key = mixed(base, slot + 1)
    return key if pair < 0 else mixed(key, keys[pair])


@kernel
def rate_of(values: Values, strength: float, prior: float) -> float:
    """An item's smoothed rate."""
    return float((max(values[C], 0.0) + strength * prior) / (values[N] + strength))


@kernel
def spread(
    facts: Doubles,
    share: float,
    scaling: Doubles,
    places: Places,
    x: Values,
) -> None:
    """Add one value's inputs to x: z-scores, and hinges where there are.

    Args:
        facts: [FACTS].
        share: 1 / number of values of the slot.
        scaling: [4, FACTS]: mean, 1 / deviation, z at the two hinges.
        places: int32 [2, FACTS]: where the z-score and the first hinge go, NEVER: nowhere.
        x: the row's inputs.
    """
    for k in range(FACTS):
        at = places[0, k]
        if at == NEVER:
            continue
        z = min(max((facts[k] - scaling[0, k]) * scaling[1, k], -CLIP), CLIP)
        x[at] += z * share
        at = places[1, k]
        if at != NEVER:
            x[at] += max(z - scaling[2, k], 0.0) * share
            x[at + 1] += max(z - scaling[3, k], 0.0) * share


@kernel
def read_row(keys: Keys, now: int, table: TableArrays, how: ScalingArrays, x: Values) -> None:
    """One row's inputs as of ``now``, added to x [k], but for the intercept and the numbers."""
    probe, facts = np.empty(PROBE), np.empty(FACTS)
    for slot in range(len(how.slots)):
        start, stop, pair = how.slots[slot, 0], how.slots[slot, 1], how.slots[slot, 2]
        there = 0
        for column in range(start, stop):
            if keys[column] != EMPTY_KEY:
                there += 1
        for column in range(start, stop):
            key = row_key(keys, column, slot, pair)
            if key == EMPTY_KEY:
                continue
            row = find(table.hashed, table.keys, key)
            if row == NEVER:
                spread(how.cold[slot], 1.0 / there, how.scaling[slot], how.places[slot], x)
                continue
            probe_row(table.values[row], table.times[row], now, how.half_lives, probe)
            describe(probe, how.strengths[slot], how.prior, facts)
            spread(facts, 1.0 / there, how.scaling[slot], how.places[slot], x)


@kernel
def read_numbers(numbers: Values, scaling: Doubles, places: Places, x: Values) -> None:
    """Add plain numbers [m]; NaN says nothing."""
    for k in range(len(numbers)):
        at = places[0, k]
        if at == NEVER or np.isnan(numbers[k]):
            continue
        z = min(max((numbers[k] - scaling[0, k]) * scaling[1, k], -CLIP), CLIP)
        x[at] += z
        at = places[1, k]
        if at != NEVER:
            x[at] += max(z - scaling[2, k], 0.0)
            x[at + 1] += max(z - scaling[3, k], 0.0)


@kernel
def count_row(keys: Keys, now: int, what: int, table: TableArrays, how: ScalingArrays) -> None:
    """Count one event in all its rows."""
    expected = 0.0
    if what == SHOWN_EVENT:
        key = row_key(keys, how.slots[ITEM, 0], ITEM, NEVER)
        item = find(table.hashed, table.keys, key)
        expected = how.prior
        if item != NEVER:
            expected = rate_of(table.values[item], how.strengths[ITEM, 0], how.prior)
    change = (1.0, 0.0, expected) if what == SHOWN_EVENT else (0.0, 1.0, 0.0)
    for slot in range(len(how.slots)):
        for column in range(how.slots[slot, 0], how.slots[slot, 1]):
            key = row_key(keys, column, slot, how.slots[slot, 2])
            if key == EMPTY_KEY:
                continue
            count = table.used[0]
            row = find_or_add(table.hashed, table.keys, count, key)
            if row == count:
                table.used[0] = count + 1
                table.values[row] = 0.0
                table.times[row] = NEVER
            table.touched[row] = table.used[1]
            count_event(table.values[row], table.times[row], now, how.half_lives, change)


@kernel
def read_rows(events: EventArrays, table: TableArrays, how: ScalingArrays, x: Values) -> None:
    """Inputs x [E, k] of rows as of their times, nothing counted: what a request does."""
    for event in range(len(events.ts)):
        x[event] = 0.0
        x[event, 0] = 1.0
        read_row(events.keys[event], events.ts[event], table, how, x[event])
        read_numbers(events.numbers[event], how.number_scaling, how.number_places, x[event])


@kernel
def run_events(events: EventArrays, table: TableArrays, how: ScalingArrays, x: Values) -> None:
    """Events in order: inputs of impressions into x [E, k], then everything counted."""
    what, ts = events.what, events.ts
    start = 0
    while start < len(what):
        stop = start + 1
        if what[start] == SHOWN_EVENT:
            while stop < len(what) and what[stop] == SHOWN_EVENT and ts[stop] == ts[start]:
                stop += 1
            for event in range(start, stop):
                x[event] = 0.0
                x[event, 0] = 1.0
                read_row(events.keys[event], ts[event], table, how, x[event])
                read_numbers(events.numbers[event], how.number_scaling, how.number_places, x[event])
        for event in range(start, stop):
            count_row(events.keys[event], ts[event], what[event], table, how)
        start = stop


@kernel
def probe_slots(keys: Keys, now: int, table: TableArrays, how: ScalingArrays, out: Doubles) -> None:
    """What each slot's first value has counted, raw: out [S, PROBE]; -1 first: no value."""
    for slot in range(len(how.slots)):
        blank_probe(out[slot])
        key = row_key(keys, how.slots[slot, 0], slot, how.slots[slot, 2])
        if key == EMPTY_KEY:
            out[slot, 0] = -1.0
            continue
        row = find(table.hashed, table.keys, key)
        if row != NEVER:
            probe_row(table.values[row], table.times[row], now, how.half_lives, out[slot])


@kernel
def describe_probes(probes: Doubles, strengths: Doubles, prior: float, out: Doubles) -> None:
    """Facts [n, FACTS] of one slot's probes [n, PROBE]; NaN where no value was."""
    for row in range(len(probes)):
        if probes[row, 0] < 0:
            out[row] = np.nan
        else:
            describe(probes[row], strengths, prior, out[row])
