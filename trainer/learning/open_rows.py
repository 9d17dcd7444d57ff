"""Open rows: impressions that were shown and can still be given a label, oldest first.

What an action needs to find is kept as one small object a row; what a model encoded of it and what
the models predicted is kept in arrays, by the number of the row, so that a learning step takes
them out at once. All of it is part of the checkpoint.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

Columns = dict[str, NDArray[Any]]
_OFFSET_BITS = 48


class OpenRow(msgspec.Struct, array_like=True, gc=False):
    """One impression.

    Attributes:
        number: counts impressions from the first one of the topic.
        at: when it was shown, ms.
        key: partition and offset of the impression, see :func:`key_of`.
        label: 1 or 0, as far as it is known; without an action 0.
        weight: of the label.
        decided_by: weight of the action that decided the label; 0: there is none yet.
        state_label: the label that the user state was updated with; -1: none yet.
        known_at: when an action decided the label, ms; -1: none has.
        learnt: the label that a learning step has taken; -1: none yet.
        learnt_weight: the weight that it has taken.
        queued: how often it is in the queue of rows to learn.
        predicted: the models predicted it when it was shown, so it counts in the evaluation.
        recorded: its place in the evaluation; -1: not recorded yet.
    """

    number: int
    at: int
    key: int
    request_id: str
    user_id: str
    item_id: str
    label: int = 0
    weight: float = 1.0
    decided_by: float = 0.0
    state_label: int = -1
    known_at: int = -1
    learnt: int = -1
    learnt_weight: float = 0.0
    queued: int = 0
    predicted: bool = True
    recorded: int = -1

    @property
    def is_done(self) -> bool:
        """Whether it is learnt, and nothing of it waits to be."""
        return self.learnt >= 0 and not self.queued

    def decide(self, label: int, weight: float) -> bool:
        """Take in an action; the one of the largest weight decides, of equal ones the latest.

        Returns:
            Whether label or weight are others now.

        >>> row = OpenRow(0, 0, 0, "r", "u", "i")
        >>> row.decide(1, 1.0), row.decide(1, 5.0), row.decide(0, 1.0)
        (True, True, False)
        >>> row.label, row.weight
        (1, 5.0)
        """
        if weight < self.decided_by:
            return False
        changed = (label, weight) != (self.label, self.weight)
        self.label, self.weight, self.decided_by = label, weight, weight
        return changed


def key_of(place: tuple[int, int]) -> int:
    """Partition and offset of an impression as one number.

    >>> key_of((2, 5)) == (2 << 48) + 5
    True
    """
    return (place[0] << _OFFSET_BITS) + place[1]


class OpenRows:
    """The open rows in three stages: not taken for learning, not closed, all.

    A row passes through them in the order in which it was shown, so each stage is the newest part
    of the next.

    Attributes:
        count: rows ever opened.
    """

    def __init__(self) -> None:
        self.count = 0
        self._to_learn: deque[OpenRow] = deque()
        self._to_close: deque[OpenRow] = deque()
        self._all: deque[OpenRow] = deque()
        self._by_key: dict[int, OpenRow] = {}
        self._arrays: Columns = {}
        self._written = 0  # rows below this number have their arrays

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[OpenRow]:
        """All rows, oldest first."""
        return iter(self._all)

    @property
    def unlearnt(self) -> int:
        """Rows whose wait has not passed."""
        return len(self._to_learn)

    @property
    def unclosed(self) -> int:
        """Rows whose attribution window has not passed."""
        return len(self._to_close)

    def open(self, row: OpenRow) -> None:
        """Add the newest row; its number must be :attr:`count`."""
        self.count += 1
        self._to_learn.append(row)
        self._to_close.append(row)
        self._all.append(row)
        self._by_key[row.key] = row

    def find(self, key: int) -> OpenRow | None:
        """The row of an impression, if it is open."""
        return self._by_key.get(key)

    # ------------------------------------------------------------------ the stages

    def next_to_learn(self) -> OpenRow | None:
        """The oldest row that was not taken for learning."""
        return self._to_learn[0] if self._to_learn else None

    def take_to_learn(self) -> OpenRow:
        """Take it."""
        return self._to_learn.popleft()

    def next_to_close(self) -> OpenRow | None:
        """The oldest row whose window has not passed."""
        return self._to_close[0] if self._to_close else None

    def close(self) -> OpenRow:
        """Close it; it stays open for actions that arrive late."""
        return self._to_close.popleft()

    def oldest(self) -> OpenRow | None:
        """The oldest row of all."""
        return self._all[0] if self._all else None

    def drop(self) -> None:
        """Drop the oldest row; it must be learnt and closed."""
        row = self._all.popleft()
        # the same impression may have been opened again by a record that was sent twice
        if self._by_key.get(row.key) is row:
            del self._by_key[row.key]

    # ------------------------------------------------------------------ the arrays

    def write(self, numbers: Sequence[int], columns: Mapping[str, NDArray[Any]]) -> None:
        """Keep arrays of rows with these consecutive numbers; the first axis is the row."""
        first = self._all[0].number if self._all else numbers[0]
        self._make_room(numbers[-1] + 1 - first, columns)
        at = np.asarray(numbers) % self._room
        for name, values in columns.items():
            self._arrays[name][at] = values
        self._written = numbers[-1] + 1

    def read(self, name: str, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """A column of rows that are open and written."""
        values: NDArray[Any] = self._arrays[name][numbers % self._room]
        return values

    @property
    def _room(self) -> int:
        return len(next(iter(self._arrays.values()))) if self._arrays else 0

    def _make_room(self, rows: int, columns: Mapping[str, NDArray[Any]]) -> None:
        if rows <= self._room:
            return
        room = max(1024, 1 << (rows - 1).bit_length())
        # all that was written and is still open
        first = self._all[0].number if self._all else self._written
        kept = np.arange(min(first, self._written), self._written)
        old, self._arrays = self._arrays, {}
        for name, values in columns.items():
            self._arrays[name] = np.zeros((room, *values.shape[1:]), values.dtype)
            if len(kept):
                self._arrays[name][kept % room] = old[name][kept % len(old[name])]

    # ------------------------------------------------------------------ the checkpoint

    def state(self) -> dict[str, NDArray[Any] | bytes]:
        """All of it."""
        facts = (self.count, self._written, len(self._to_learn), len(self._to_close))
        kept = self._kept()
        arrays = {f"arrays.{n}": a[kept % len(a)] for n, a in self._arrays.items()}
        rows = msgspec.msgpack.encode(list(self._all))
        return {"facts": msgspec.msgpack.encode(facts), "rows": rows, **arrays}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        facts = msgspec.msgpack.decode(state["facts"], type=tuple[int, int, int, int])
        self.count, self._written, to_learn, to_close = facts
        rows = msgspec.msgpack.decode(state["rows"], type=list[OpenRow])
        self._all = deque(rows)
        self._to_learn = deque(_newest(self._all, to_learn))
        self._to_close = deque(_newest(self._all, to_close))
        self._by_key = {row.key: row for row in rows}
        kept = self._kept()
        columns = {
            name.removeprefix("arrays."): np.asarray(values)
            for name, values in state.items()
            if name.startswith("arrays.")
        }
        self._arrays = {}
        if columns:
            written, self._written = self._written, 0
            self._make_room(max(1, len(rows)), columns)
            self._written = written
            for name, values in columns.items():
                self._arrays[name][kept % self._room] = values

    def _kept(self) -> NDArray[np.int64]:
        """Numbers of the rows that are open and written."""
        first = self._all[0].number if self._all else self._written
        return np.arange(min(first, self._written), self._written)


def _newest(rows: deque[OpenRow], count: int) -> Iterator[OpenRow]:
    return islice(rows, len(rows) - count, None)
