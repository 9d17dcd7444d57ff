"""Evaluation: how well each model predicted samples before it learnt them.

Every prediction is made when its row is shown, with what was learnt by then, and recorded when its
attribution window has passed; for all models on the same rows, so the figures of two models differ
by the models alone. The newest rows are kept in a ring
of fixed size, as arrays that go into the checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from inttower.evaluate import Figures, figures

FloatArray = NDArray[np.float32]
State = Mapping[str, NDArray[np.generic]]


def user_code(user_id: str) -> int:
    """A 64-bit code that is the same in every process (Python's own hash is not)."""
    return int.from_bytes(blake2b(user_id.encode(), digest_size=8).digest(), "little")


class Evaluation:
    """The newest ``capacity`` rows of predictions of several models.

    Args:
        models: their names, in the order of the columns that :meth:`record` is given.
        capacity: rows kept.
        window: rows of the sliding window (the newest ones).

    Attributes:
        recorded: rows recorded since the beginning, also those no longer kept.
    """

    def __init__(self, models: Sequence[str], capacity: int, window: int) -> None:
        self.models = tuple(models)
        self._capacity = capacity
        self._window = min(window, capacity)
        self.recorded = 0
        self._written = 0  # rows written to the ring since it was allocated: its next place
        self._allocate(min(capacity, 1024))

    def _allocate(self, rows: int) -> None:
        self._logits = np.zeros((rows, len(self.models)), np.float32)
        self._labels = np.zeros(rows, np.uint8)
        self._users = np.zeros(rows, np.uint64)

    @property
    def kept(self) -> int:
        """Rows that figures over all rows are made of."""
        return min(self._written, self._capacity)

    def record(
        self,
        logits: FloatArray,
        labels: NDArray[np.uint8],
        users: NDArray[np.uint64],
    ) -> None:
        """Keep the predictions of B rows.

        Args:
            logits: [B, models], in the order of the models.
            labels: 0/1 [B].
            users: codes [B], see :func:`user_code`.
        """
        end = self._written + len(labels)
        while len(self._labels) < min(end, self._capacity):
            self._grow()
        at = np.arange(self._written, end) % self._capacity
        self._logits[at] = logits
        self._labels[at] = labels
        self._users[at] = users
        self._written = end
        self.recorded += len(labels)

    def relabel(self, place: int, label: int) -> None:
        """Give another label to a row by its place among all recorded, if it is still kept."""
        back = self.recorded - place
        if 0 < back <= self.kept:
            self._labels[(self._written - back) % self._capacity] = label

    def _grow(self) -> None:
        old = self._logits, self._labels, self._users
        self._allocate(min(2 * len(old[1]), self._capacity))
        n = len(old[1])
        self._logits[:n], self._labels[:n], self._users[:n] = old

    def _newest(self, rows: int) -> NDArray[np.int64]:
        """Places in the ring of the newest rows, oldest first."""
        rows = min(rows, self.kept)
        return np.arange(self._written - rows, self._written) % self._capacity

    def over_all(self) -> dict[str, Figures]:
        """Figures of every model over all rows kept."""
        return self._figures(self._newest(self._capacity))

    def over_window(self) -> dict[str, Figures]:
        """Figures of every model over the sliding window."""
        return self._figures(self._newest(self._window))

    def _figures(self, at: NDArray[np.int64]) -> dict[str, Figures]:
        labels, users = self._labels[at], self._users[at]
        return {
            name: figures(self._logits[at, i], labels, users) for i, name in enumerate(self.models)
        }

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The rows kept, oldest first, for the checkpoint."""
        at = self._newest(self._capacity)
        return {
            "recorded": np.array([self.recorded], np.int64),
            "logits": self._logits[at],
            "labels": self._labels[at],
            "users": self._users[at],
        }

    def load_state(self, state: State) -> None:
        """The inverse of :meth:`state`; under a smaller capacity the newest rows stay."""
        labels = state["labels"][-self._capacity :]
        n = len(labels)
        self.recorded = int(state["recorded"][0])
        self._written = n
        self._allocate(max(n, 1))
        self._logits[:n] = state["logits"][-self._capacity :]
        self._labels[:n] = labels
        self._users[:n] = state["users"][-self._capacity :]
