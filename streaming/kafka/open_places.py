"""Open places: events (partition, offset) that no outcome has named yet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class OpenPlaces:
    """Open places of one partition: offsets in rising order, with their due times.

    The due time is negative for an action that is for features only.
    """

    def __init__(self, places: list[tuple[int, int]]) -> None:
        self._new: list[tuple[int, int]] = places
        self._offsets: NDArray[np.int64] = np.zeros(0, np.int64)
        self._due: NDArray[np.int64] = np.zeros(0, np.int64)
        self._crossed: list[int] = []

    def add(self, offset: int, due: int) -> None:
        """A place that must be named before the watermark passes ``due`` (ms)."""
        self._new.append((offset, due))

    def cross_out(self, offset: int) -> None:
        """Something names this place."""
        self._crossed.append(offset)

    def settle(self) -> None:
        """Bring what was added and crossed out into the arrays."""
        if self._new:
            new = np.array(self._new, np.int64)
            self._offsets = np.concatenate([self._offsets, new[:, 0]])
            self._due = np.concatenate([self._due, new[:, 1]])
            self._new = []
        left = ~np.isin(self._offsets, np.array(self._crossed, np.int64))
        self._offsets, self._due, self._crossed = self._offsets[left], self._due[left], []

    def __len__(self) -> int:
        return len(self._offsets)

    def overdue(self, watermark: int) -> int:
        """How many must have been named by now."""
        return int(((self._due >= 0) & (self._due <= watermark)).sum())

    def features_only(self, watermark: int) -> int:
        """How many actions for features only are past their time."""
        return int(((self._due < 0) & (-self._due <= watermark)).sum())

    def places(self) -> list[tuple[int, int]]:
        """All of them, as they are kept."""
        return list(zip(self._offsets.tolist(), self._due.tolist(), strict=True))
