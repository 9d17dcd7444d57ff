"""What the trainer makes of a user state: rows for servers, and inputs put into encoded batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inttower.core.batch import Batch, FloatArray, Layout
from inttower.core.contract import Columns, Decoupled
from inttower.core.spec import FeatureSpec
from inttower.state.user_state import UserState


def user_rows(model: Decoupled, state: UserState | None, columns: Columns) -> FloatArray:
    """What a server needs of users: the learnt row, and behind it the state's inputs of the user.

    Args:
        model: has the rows, and the spec in whose order the state's fields stand.
        state: None: there is nothing behind the rows.
        columns: ids and static fields of n users.

    Returns:
        float32 [n, R + S].
    """
    ids = columns[model.spec.id_field("user").name]
    rows = model.user_id_rows(ids)  # type: ignore[arg-type]  # an id field holds a text a row
    if state is None:
        return rows
    inputs = state.user_inputs(columns)
    fields = [f.name for f in model.spec.of_side("user", "dense") if f.name in inputs]
    behind = [np.reshape(inputs[name], (len(ids), -1)) for name in fields]
    return np.concatenate([rows, *behind], axis=1, dtype=np.float32)


def set_inputs(batch: Batch, spec: FeatureSpec, inputs: Mapping[str, FloatArray]) -> None:
    """Set these dense fields of a batch, in place: its rows were encoded before they were known.

    Inputs that the spec does not have are not set: a model may do without them.
    """
    layout = Layout(spec)
    names = {f.name for f in layout.dense}
    for name in names & inputs.keys():
        batch.dense[:, layout.dense_slice(name)] = np.reshape(inputs[name], (len(batch), -1))
