"""Adds the user state's inputs to a model's columns, in the benches in time order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bench.log_rows import CHUNK, LogRows, Rows, Times, chunks
from features.model_inputs import Columns
from inttower.core.batch import Batch
from inttower.core.contract import Model
from inttower.core.spec import FeatureSpec
from inttower.state.user_state import UserState, UserStateConfig

# an outcome is known a millisecond after its impression, so to no row of the same time
_KNOWN_AFTER_MS = 1


class UserStateFeatures:
    """Adds the inputs of a user state to columns, and updates the state.

    Args:
        data: the rows.
        spec: the fields that models read.
        state: False: columns pass unchanged.
        refit_every: rows of the stream between two refits of the state.

    Attributes:
        spec: with the fields of the state.
    """

    def __init__(
        self, data: LogRows, spec: FeatureSpec, *, state: bool, refit_every: int | None = None
    ) -> None:
        self._data = data
        self._plain = spec
        config = UserStateConfig(refit_every=refit_every)
        self._state = UserState(data.spec, config) if state else None
        self.spec = spec
        if self._state is not None:
            self.spec = FeatureSpec((*spec.fields, *self._state.fields))

    def warm_up(self, model: Model, rows: Rows, at: Times) -> Batch:
        """Encode rows of the warm-up, admit their ids, and fit the state on them."""
        data, state = self._data, self._state
        if state is None:
            return data.encoded(model, rows, admit=True, at=at)
        for part in chunks(len(rows), CHUNK):
            some = rows[part]
            ts = data.ts[some]
            state.collect(data.texts(some), ts, ts + _KNOWN_AFTER_MS, data.log.labels[some])
        inputs = state.fit()
        parts = []
        for part in chunks(len(rows), CHUNK):
            columns = data.columns(rows[part], at[part])
            columns |= {name: values[part] for name, values in inputs.items()}
            parts.append(model.encode(columns, admit=True))
        return Batch.concat(parts)

    def streamed(self, columns: Columns, ts: Times, labels: NDArray[np.uint8]) -> Columns:
        """Columns of the next rows of the stream; learns their outcomes."""
        if self._state is not None:
            self._state.learn(columns, ts + _KNOWN_AFTER_MS, labels)
        return self.joined(columns, ts)

    def joined(self, columns: Columns, ts: Times) -> Columns:
        """Columns with the inputs as of these times; learns nothing."""
        if self._state is None:
            return columns
        return {**columns, **self._state.inputs(columns, ts)}

    def copy(self) -> UserStateFeatures:
        """A copy with equal state, which learns no more."""
        other = UserStateFeatures(self._data, self._plain, state=self._state is not None)
        if self._state is not None and other._state is not None:
            other._state.load_state(self._state.state())
        return other
