"""Feeds labels to the user state, in the order in which they become known."""

from __future__ import annotations

import numpy as np

from inttower.state.belief_kernels import FROM_NEGATIVE, FROM_POSITIVE
from inttower.state.user_state import UserState
from trainer.learning.open_rows import OpenRow
from trainer.learning.sample_inputs import SampleInputs
from trainer.learning.touched import Touched

# the user state must remember for so long what it was, so rows are predicted within it, in ms
LONGEST_CHUNK_MS = 10 * 60_000


class OutcomeFeed:
    """Updates a user state with labels, in batches; the batch size changes nothing.

    A row is fed once its label is known: at its action, or as a negative when its wait has
    passed. A later action corrects the update.

    Args:
        state: None: there is none, and no label is used.
        inputs: has the attributes of users and items.
        touched: is given the users whose state has changed.

    Attributes:
        clock: time of the newest outcome, ms.
    """

    def __init__(self, state: UserState | None, inputs: SampleInputs, touched: Touched) -> None:
        self._state = state
        self._inputs = inputs
        self._touched = touched
        self._open: list[tuple[str, str, int, int]] = []
        self.clock = -1

    def add(self, row: OpenRow, at: int) -> None:
        """Note what is known of a row from this time on, ms."""
        before, row.state_label = row.state_label, row.label
        if self._state is None or before == row.label:
            return
        outcome = row.label
        if before >= 0:
            outcome = FROM_NEGATIVE if row.label else FROM_POSITIVE
        self.clock = max(at, self.clock)
        self._open.append((row.user_id, row.item_id, self.clock, outcome))

    def settle(self) -> None:
        """Let the user state learn what was noted."""
        if self._state is None or not self._open:
            return
        users, items, times, outcomes = (list(column) for column in zip(*self._open, strict=True))
        self._open.clear()
        columns = {**self._inputs.statics("user", users), **self._inputs.statics("item", items)}
        self._state.learn(columns, np.array(times, np.int64), np.array(outcomes, np.float32))
        self._touched.users.update(zip(users, times, strict=True))
