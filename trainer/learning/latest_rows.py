"""The newest raw features of each user or item, from the samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from features.declaration import Declaration, Entity
from features.model_inputs import RawRows, Values, getter, never_seen


class LatestRows:
    """One row of raw feature values an id, the one with the newest event time.

    Args:
        declaration: says which values an entity has, and in which order.
        entity: whose rows.
        limit: most rows; those with the oldest event time are evicted first.
    """

    def __init__(self, declaration: Declaration, entity: Entity, limit: int) -> None:
        self._values_of = getter(declaration, entity)
        self._blank = (0, never_seen(declaration, entity))
        self._limit = limit
        self._rows: dict[str, tuple[int, Values]] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def ids(self) -> list[str]:
        """All ids that have a row, in the order in which they first got one."""
        return list(self._rows)

    def update(self, ids: Sequence[str], times: Sequence[int], features: Iterable[Any]) -> None:
        """Update from samples, with the times of their impressions (ms).

        Args:
            ids: of the entity, one a sample.
            times: event time of each sample's impression.
            features: the samples' feature structs.
        """
        rows = self._rows
        for id_, ts, struct in zip(ids, times, features, strict=True):
            known = rows.get(id_)
            if known is None or ts >= known[0]:
                rows[id_] = (ts, self._values_of(struct))
        if len(rows) > self._limit:
            self._evict()

    def _evict(self) -> None:
        # a tenth at a time, so that sorting is rare
        excess = len(self._rows) - self._limit + self._limit // 10
        oldest = sorted(self._rows, key=lambda id_: (self._rows[id_][0], id_))
        for id_ in oldest[:excess]:
            del self._rows[id_]

    def raw(self, ids: Sequence[str]) -> RawRows:
        """The rows of these ids; zeros without a row, which means no history."""
        return RawRows(ids, [self._rows.get(id_, self._blank)[1] for id_ in ids])

    def times(self, ids: Sequence[str]) -> list[int]:
        """Event time (ms) of each id's row; 0 where there is none."""
        return [self._rows.get(id_, self._blank)[0] for id_ in ids]

    def state(self) -> bytes:
        """All rows, for the checkpoint."""
        return msgspec.msgpack.encode(list(self._rows.items()))

    def load_state(self, data: bytes) -> None:
        """The inverse of :meth:`state`."""
        rows = msgspec.msgpack.decode(data, type=list[tuple[str, tuple[int, Values]]])
        self._rows = dict(rows)
