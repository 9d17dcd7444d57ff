"""A bounded table of counter rows by 64-bit key; a full table evicts the oldest half."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from inttower.base.counter_kernels import NEVER, TIMES, VALUES, TableArrays, find_or_add, place
from inttower.core.contract import State
from inttower.errors import StateError

_FIRST = 1 << 12


class CounterTable:
    """Rows of :mod:`inttower.base.counter_kernels`, in the order in which their keys came.

    When it holds more than ``limit`` rows, the half that no event has touched for longest is
    evicted; such a key starts anew.

    Args:
        limit: rows at most, some 90 bytes each.
    """

    def __init__(self, limit: int) -> None:
        if limit < 2:
            raise StateError(f"a counter table of {limit} rows: give it at least 2")
        self.limit = limit
        self.used = np.zeros(2, np.int64)
        self.evictions = 0  # and clearings: rows are gone that were there
        self._allot(_FIRST)

    def _allot(self, rows: int) -> None:
        self.keys = np.zeros(rows, np.int64)
        self.values = np.zeros((rows, VALUES), np.float32)
        self.times = np.full((rows, TIMES), NEVER, np.int64)
        self.touched = np.zeros(rows, np.int32)
        self.index = np.full(2 * rows, NEVER, np.int32)

    @property
    def arrays(self) -> TableArrays:
        """The table as loops see it; good until :meth:`make_room`."""
        return TableArrays(self.index, self.keys, self.values, self.times, self.touched, self.used)

    @property
    def count(self) -> int:
        """Rows held."""
        return int(self.used[0])

    @count.setter
    def count(self, rows: int) -> None:
        self.used[0] = rows

    @property
    def round(self) -> int:
        """Noted with each row that an event changes; see :meth:`changed`."""
        return int(self.used[1])

    @round.setter
    def round(self, number: int) -> None:
        self.used[1] = number

    def __len__(self) -> int:
        """Rows held."""
        return self.count

    def make_room(self, more: int) -> None:
        """Have room for ``more`` new keys, evicting if the limit is passed."""
        if self.count > self.limit:
            self._evict()
        need = self.count + more
        if need > len(self.keys):
            kept = np.arange(self.count)
            self._rebuild(kept, 1 << int(need - 1).bit_length())

    def _evict(self) -> None:
        newest = self.times[: self.count].max(1)
        # stable: of rows with equal times the older ones go first
        order = np.argsort(newest, kind="stable")
        kept = np.sort(order[self.count - self.limit // 2 :])
        self.evictions += 1
        self._rebuild(kept, len(self.keys))

    def _rebuild(self, kept: npt.NDArray[np.int64], rows: int) -> None:
        old = (self.keys[kept], self.values[kept], self.times[kept], self.touched[kept])
        self._allot(rows)
        self.count = len(kept)
        n = self.count
        self.keys[:n], self.values[:n], self.times[:n], self.touched[:n] = old
        place(self.index, self.keys, n)

    def clear(self) -> None:
        """Forget all."""
        self.evictions += 1
        self.count = 0
        self._allot(_FIRST)

    def changed(self) -> npt.NDArray[np.int64]:
        """Rows that events of this round have touched, int64 [n]; the next round begins."""
        found = np.flatnonzero(self.touched[: self.count] == self.round)
        self.round += 1
        return found

    def take(
        self,
        keys: npt.NDArray[np.int64],
        values: npt.NDArray[np.float32],
        times: npt.NDArray[np.int64],
    ) -> None:
        """Put rows of another table in, replacing those of equal key: what a delta brings."""
        self.make_room(len(keys))
        for at, key in enumerate(keys.tolist()):
            row = self._row(key)
            self.values[row], self.times[row] = values[at], times[at]

    def _row(self, key: int) -> int:
        row = find_or_add(self.index, self.keys, self.count, key)
        self.count = max(self.count, row + 1)
        return row

    def state(self) -> State:
        """All rows; equal tables give equal bytes."""
        n = self.count
        return {
            "keys": self.keys[:n].copy(),
            "values": self.values[:n].copy(),
            "times": self.times[:n].copy(),
            "touched": self.touched[:n].copy(),
            "round": np.array([self.round, self.evictions]),
        }

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`."""
        arrays = {k: np.asarray(v) for k, v in state.items() if not isinstance(v, bytes)}
        n = len(arrays["keys"])
        self.clear()
        if n > len(self.keys):
            self._allot(1 << int(n - 1).bit_length())
        self.count = n
        self.keys[:n], self.values[:n] = arrays["keys"], arrays["values"]
        self.times[:n], self.touched[:n] = arrays["times"], arrays["touched"]
        self.round, self.evictions = arrays["round"].tolist()
        place(self.index, self.keys, n)
