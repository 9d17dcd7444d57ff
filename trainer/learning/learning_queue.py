"""The learning queue: rows wait until a batch is full, then one step learns them.

Batches are cut by count only. A step of Adam has the same size for three rows as for three hundred,
so steps of few rows would learn noise. Rows wait for others instead, however slow the traffic is.
"""

from __future__ import annotations

import msgspec
import numpy as np

from trainer.learning.model_set import Models
from trainer.learning.open_rows import OpenRow, OpenRows
from trainer.learning.predictor import encoded
from trainer.learning.touched import Touched

# a batch that no moment or request ends is cut at so many times its size
_LARGEST = 8

# a row, label, weight; without a label: the row's own at the time of the step
_Entry = tuple[OpenRow, int | None, float]
_SavedEntry = tuple[int, int | None, float]


class LearningQueue:
    """Rows to be learnt, and corrections of rows that were.

    Args:
        models: that learn.
        rows: the open rows; a row that is queued must be open, and written at the step.
        touched: is given the users and items that a step changes.
        batch_samples: entries of a full batch.
    """

    def __init__(
        self, models: Models, rows: OpenRows, touched: Touched, batch_samples: int
    ) -> None:
        self._models = models
        self._rows = rows
        self._touched = touched
        self._batch_samples = batch_samples
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def is_full(self) -> bool:
        """Whether there are enough for a step."""
        return len(self._entries) >= self._batch_samples

    @property
    def is_overfull(self) -> bool:
        """Whether there are so many that a step must not wait for the end of a moment."""
        return len(self._entries) >= _LARGEST * self._batch_samples

    def add(self, row: OpenRow) -> None:
        """Learn a row for the first time, with the label that it has at the step."""
        self._put(row, None, 0.0)

    def correct(self, row: OpenRow) -> None:
        """Learn a row again with its new label, and with the one it was learnt with at −weight.

        The gradient of both together is that of the new label less that of the old one.
        """
        if row.label == row.learnt:
            self._put(row, row.label, row.weight - row.learnt_weight)
        else:
            self._put(row, row.label, row.weight)
            self._put(row, row.learnt, -row.learnt_weight)
        row.learnt, row.learnt_weight = row.label, row.weight

    def _put(self, row: OpenRow, label: int | None, weight: float) -> None:
        row.queued += 1
        self._entries.append((row, label, weight))

    def step(self, now: int) -> float:
        """Learn all that waits, at this time (ms); the mean loss of the online model before it."""
        entries, self._entries = self._entries, []
        for row, label, _ in entries:
            row.queued -= 1
            if label is None:
                row.learnt, row.learnt_weight = row.label, row.weight
        numbers = np.array([row.number for row, _, _ in entries], np.int64)
        labels = np.array([row.label if y is None else y for row, y, _ in entries], np.float32)
        weights = np.array([row.weight if y is None else w for row, y, w in entries], np.float32)
        online, logistic = encoded(self._rows, numbers, self._models)
        loss = self._models.online.learn(online, labels, weights)
        self._models.logistic.learn(logistic, labels, weights)
        for row, _, _ in entries:
            self._touched.users[row.user_id] = now
            self._touched.items[row.item_id] = now
        for id_ in self._models.online.ids_of(online, "item"):
            self._touched.items[id_] = now
        return loss

    def state(self) -> bytes:
        """What waits, for the checkpoint."""
        saved = [(row.number, label, weight) for row, label, weight in self._entries]
        return msgspec.msgpack.encode(saved)

    def load_state(self, state: bytes) -> None:
        """The inverse of :meth:`state`; the open rows must be restored before."""
        by_number = {row.number: row for row in self._rows}
        saved = msgspec.msgpack.decode(state, type=list[_SavedEntry])
        self._entries = [(by_number[number], label, weight) for number, label, weight in saved]
