"""A growing table of learnt rows by text id, each with the event time of its newest sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float32]
# older than any event: any other row may replace it
NEVER = int(np.iinfo(np.int64).min)


class RowTable:
    """Aligned matrices with a row an id.

    Row 0 is used for every unknown id.

    Args:
        unknown: row 0 of each matrix, float32 [width].
        ids: of the rows that follow.
        matrices: float32 [n, width], as many as ``unknown`` has rows; copied.
        ts: event time of each row in ms, [n]; None: older than all else.

    >>> table = RowTable([np.zeros(2, np.float32)], ["a"], [np.ones((1, 2), np.float32)])
    >>> table.find(["a", "b"]).tolist()
    [1, 0]
    >>> table.update(["b"], [5], [np.full((1, 2), 7, np.float32)])
    0
    >>> table.matrices[0][table.find(["a", "b"])].tolist()
    [[1.0, 1.0], [7.0, 7.0]]
    """

    def __init__(
        self,
        unknown: Sequence[_Floats],
        ids: Sequence[str],
        matrices: Sequence[_Floats],
        ts: NDArray[np.int64] | None = None,
    ) -> None:
        self._held = [
            np.concatenate([row[None, :], matrix], dtype=np.float32)
            for row, matrix in zip(unknown, matrices, strict=True)
        ]
        self._ts = np.full(len(ids) + 1, NEVER, dtype=np.int64)
        if ts is not None:
            self._ts[1:] = ts
        self.ids = ["", *ids]
        self._row_of = {name: row for row, name in enumerate(ids, start=1)}

    def __len__(self) -> int:
        """Ids that have a row of their own."""
        return len(self._row_of)

    def __contains__(self, name: str) -> bool:
        return name in self._row_of

    @property
    def matrices(self) -> list[_Floats]:
        """Views of the rows in use, row 0 included: [len + 1, width] each."""
        return [matrix[: len(self.ids)] for matrix in self._held]

    def find(self, names: Sequence[str]) -> NDArray[np.intp]:
        """The row of each id; 0 for those without one."""
        row_of = self._row_of
        return np.array([row_of.get(name, 0) for name in names], dtype=np.intp)

    def ts_of(self, name: str) -> int | None:
        """Event time in ms of the newest sample behind an id's row; None: none is known."""
        ts = int(self._ts[self._row_of.get(name, 0)])
        return None if ts == NEVER else ts

    def update(
        self,
        names: Sequence[str],
        ts: Sequence[int] | NDArray[np.int64],
        fresh: Sequence[NDArray[np.float32]],
    ) -> int:
        """Update rows and add new ids, except where the present row is newer.

        Args:
            names: the ids, each once.
            ts: event times in ms, in the same order.
            fresh: float32 [len(names), width] for each matrix.

        Returns:
            How many rows were stale: older than the present ones, and ignored.
        """
        self._admit(names)
        rows = self.find(names)
        times = np.asarray(ts, dtype=np.int64)
        newer = times >= self._ts[rows]
        rows = rows[newer]
        self._ts[rows] = times[newer]
        for held, matrix in zip(self._held, fresh, strict=True):
            held[rows] = matrix[newer]
        return len(names) - len(rows)

    def _admit(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self._row_of:
                self._row_of[name] = len(self.ids)
                self.ids.append(name)
        if len(self.ids) > len(self._ts):
            # by half as much again, so that growth is cheap over many deltas
            room = len(self.ids) * 3 // 2 - len(self._ts)
            self._ts = np.concatenate([self._ts, np.full(room, NEVER, dtype=np.int64)])
            self._held = [
                np.concatenate([matrix, np.zeros((room, matrix.shape[1]), np.float32)])
                for matrix in self._held
            ]
