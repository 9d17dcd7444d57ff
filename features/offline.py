"""The offline engine: the declared streaming features as of any time, from a log in memory.

It computes what the streaming job computes event by event, by lookups in sorted arrays: the events
of each user and item are in time order, and features as of a time follow from how many are earlier.
A row may also ask for older features; :mod:`bench.delay` uses that to make counters late.

Values equal the job's: an event counts strictly after its own millisecond, so an impression knows
neither its own outcome nor its siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import md5

import numpy as np
from numpy.typing import NDArray

from features.declaration import (
    RATE_UNIT,
    RECENT_SLOTS,
    Declaration,
    Entity,
    SmoothedRate,
    Source,
    Streaming,
)
from features.log_arrays import Happened, LogArrays
from inttower.core.kernels import kernel
from settings.errors import ConfigurationError

Codes = NDArray[np.int32]
Times = NDArray[np.int64]

NONE = -1


@dataclass(frozen=True, slots=True)
class _Timeline:
    """Events of one kind, sorted by (whose, time).

    Attributes:
        order: int64 [n], position of each in the log.
        keys: int64 [n], whose · span + time since ``start``, rising.
        start: the earliest time minus 1, ms.
        span: more than the log is long, ms.
    """

    order: NDArray[np.int64]
    keys: NDArray[np.int64]
    start: int
    span: int

    @classmethod
    def of(cls, whose: Codes, happened: Happened, tie: Codes) -> _Timeline:
        """Sort; ``tie`` [n] orders events of one user (or item) and millisecond."""
        ts = happened.ts
        order = np.lexsort((tie, ts, whose))
        start = int(ts.min()) - 1 if len(ts) else 0
        span = int(ts.max()) - start + 2 if len(ts) else 2
        keys = whose[order].astype(np.int64) * span + (ts[order] - start)
        return cls(order, keys, start, span)

    def before(self, whose: Codes, at: Times) -> NDArray[np.int64]:
        """How many entries lie before (whose, at), strictly; int64 [B]."""
        since = np.clip(at - self.start, 0, self.span - 1)
        return np.searchsorted(self.keys, whose.astype(np.int64) * self.span + since)

    def first(self, whose: Codes) -> NDArray[np.int64]:
        """First entry of each; int64 [B]."""
        return np.searchsorted(self.keys, whose.astype(np.int64) * self.span)


class OfflineFeatures:
    """Features of users and items as of given times.

    Args:
        declaration: the features.
        log: all events.
    """

    def __init__(self, declaration: Declaration, log: LogArrays) -> None:
        self._declaration = declaration
        self._log = log
        self._timelines: dict[tuple[Entity, Source], _Timeline] = {}
        self._sums: dict[str, NDArray[np.int64]] = {}
        self._slots = slots(log.item_ids)

    def values(
        self, entity: Entity, whose: Codes, at: Times
    ) -> list[NDArray[np.int64] | NDArray[np.float64] | NDArray[np.int32]]:
        """Raw features strictly before ``at``, in the order of ``declaration.of_entity``.

        Args:
            entity: of which side.
            whose: codes of the users or items, int32 [B].
            at: the times, ms, int64 [B].

        Returns:
            An array [B] each; recent items are codes [B, 16], newest first, padded with -1.
        """
        return [self._value(f, whose, at) for f in self._declaration.of_entity(entity)]

    def shown_before(self, users: Codes, at: Times) -> NDArray[np.int64]:
        """How many impressions each user had strictly before, int64 [B]."""
        line = self._timeline("user", "impression")
        return line.before(users, at) - line.first(users)

    def _value(
        self, feature: Streaming, whose: Codes, at: Times
    ) -> NDArray[np.int64] | NDArray[np.float64] | NDArray[np.int32]:
        line = self._timeline(feature.entity, feature.source)
        end = line.before(whose, at)
        start = line.first(whose)
        if feature.window_ms is not None:
            # in the job an event's time is one more than its ts, and a window holds both its ends
            start = np.maximum(start, line.before(whose, at - feature.window_ms - 1))
        if feature.aggregate == "count":
            return end - start
        happened = self._log.happened(feature.source)
        if feature.aggregate in {"first_ts", "last_ts"}:
            if not len(line.order):
                return np.zeros(len(whose), np.int64)
            place = start if feature.aggregate == "first_ts" else end - 1
            place = np.clip(place, 0, len(line.order) - 1)
            return np.where(end > start, happened.ts[line.order[place]], 0)
        if feature.aggregate == "recent_items":
            return _recent(start, end, happened.items[line.order], self._slots)
        sums = self._rate_sums(feature, line)
        return (sums[end] - sums[start]) / RATE_UNIT

    def _timeline(self, entity: Entity, source: Source) -> _Timeline:
        key = (entity, source)
        if key not in self._timelines:
            happened = self._log.happened(source)
            whose = happened.users if entity == "user" else happened.items
            # codes are in the order of the ids' text, as in the job's MAX
            self._timelines[key] = _Timeline.of(whose, happened, tie=happened.items)
        return self._timelines[key]

    def _rate_sums(self, feature: Streaming, line: _Timeline) -> NDArray[np.int64]:
        """Sums of the rates of all entries before each, in millionths; int64 [n + 1]."""
        if feature.name not in self._sums:
            if feature.rate is None:
                raise ConfigurationError(f"feature {feature.name!r} has no rate to add up")
            shown = self._log.impressions
            units = self._rate_units(feature.rate, shown.items, shown.ts + 1)
            self._sums[feature.name] = np.concatenate(([0], np.cumsum(units[line.order])))
        return self._sums[feature.name]

    def _rate_units(self, rate: SmoothedRate, items: Codes, at: Times) -> NDArray[np.int64]:
        clicks, shown = (
            self._value(self._declaration.feature(name), items, at).astype(np.int64)
            for name in (rate.clicks, rate.impressions)
        )
        return (clicks * RATE_UNIT + rate.prior_units) // (shown + rate.strength)


def slots(item_ids: list[str]) -> NDArray[np.int8]:
    """The hash slot of each item, int8 [n]: the first hexadecimal digit of its MD5.

    >>> slots(["1", "2"]).tolist()
    [12, 12]
    """
    digests = (md5(i.encode(), usedforsecurity=False).digest() for i in item_ids)
    return np.array([d[0] >> 4 for d in digests], np.int8)


@kernel
def _recent(
    start: NDArray[np.int64],
    end: NDArray[np.int64],
    items: NDArray[np.int32],
    slot_of: NDArray[np.int8],
) -> NDArray[np.int32]:
    out = np.full((len(start), RECENT_SLOTS), NONE, np.int32)
    for row in range(len(start)):
        taken = np.zeros(RECENT_SLOTS, np.bool_)
        filled = 0
        place = end[row] - 1
        while place >= start[row] and filled < RECENT_SLOTS:
            slot = slot_of[items[place]]
            if not taken[slot]:
                taken[slot] = True
                out[row, filled] = items[place]
                filled += 1
            place -= 1
    return out
