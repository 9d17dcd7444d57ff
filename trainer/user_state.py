"""The seam for state of a user that the trainer keeps beside the network.

Such a state is fed by every sample that closes, in the order of learning, and by nothing else. It
adds dense inputs to the columns that the network reads, it travels with the user's row in deltas
and versions, and it lies in the checkpoint with all else that is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from features.samples import Sample
from inttower.batch import Batch, FloatArray, Layout
from inttower.contract import Decoupled
from inttower.spec import FeatureSpec

Inputs = Mapping[str, FloatArray]


class UserState(Protocol):
    """What the trainer asks of a user state.

    In the warm-up: :meth:`collect` for all samples in order, then :meth:`fit` once. In the stream,
    for each batch: :meth:`inputs`, then the network predicts and learns, then :meth:`learn`. Rows
    of one user with equal impression time must all be answered before any of them is learnt; for
    those that fall into two batches the state itself sees to it.
    """

    def collect(self, samples: Sequence[Sample]) -> None:
        """Take in samples of the warm-up."""

    def fit(self) -> Inputs:
        """Learn the warm-up; gives the inputs of its rows, [n, width] by field, in order.

        A row's inputs must not know its own label, else the network trusts them too much.
        """

    def inputs(self, samples: Sequence[Sample]) -> Inputs:
        """Inputs of samples as the state stands, [n, width] by field; changes nothing."""

    def learn(self, samples: Sequence[Sample]) -> None:
        """Take in samples that have closed."""

    def user_inputs(self, user_ids: Sequence[str]) -> Inputs:
        """The user side's inputs as they are now, [n, width] by field."""

    def item_inputs(self, item_ids: Sequence[str]) -> Inputs:
        """The item side's inputs, [n, width] by field; they change with :meth:`fit` alone."""

    def state(self) -> dict[str, NDArray[Any] | bytes]:
        """All that was learnt; equal states give equal bytes."""

    def load_state(self, state: Mapping[str, NDArray[Any] | bytes]) -> None:
        """The inverse of :meth:`state`."""


def user_rows(model: Decoupled, state: UserState | None, ids: Sequence[str]) -> FloatArray:
    """What a server needs of users: the learnt row, and behind it the state's inputs of the user.

    float32 [n, R + S]; the state's fields stand in the order of the model's spec.
    """
    rows = model.user_id_rows(ids)
    if state is None:
        return rows
    inputs = state.user_inputs(ids)
    fields = [f.name for f in model.spec.of_side("user", "dense") if f.name in inputs]
    columns = [np.reshape(inputs[name], (len(ids), -1)) for name in fields]
    return np.concatenate([rows, *columns], axis=1, dtype=np.float32)


def with_inputs(batch: Batch, spec: FeatureSpec, inputs: Inputs) -> Batch:
    """The batch with these dense fields set: for rows that were encoded before they were known."""
    layout = Layout(spec)
    dense = batch.dense.copy()
    for name, values in inputs.items():
        dense[:, layout.dense_slice(name)] = np.reshape(values, (len(batch), -1))
    return Batch(batch.rows, dense, batch.generation)
