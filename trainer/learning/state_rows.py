"""User state in the trainer: rows for servers, and inputs of encoded batches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from inttower.core.batch import Batch, FloatArray, Layout
from inttower.core.contract import Columns, Decoupled
from inttower.core.spec import FeatureSpec
from inttower.state.user_state import UserState


def user_rows(model: Decoupled, state: UserState | None, columns: Columns) -> FloatArray:
    """Rows of users for servers: the learnt row, followed by the user state's inputs.

    Args:
        model: has the rows, and the spec that gives the order of the state's fields.
        state: None: the learnt rows only.
        columns: ids and static fields of n users.

    Returns:
        float32 [n, R + S].
    """
    ids = columns[model.spec.id_field("user").name]
    rows = model.user_id_rows(ids)  # type: ignore[arg-type]  # an id field holds a text a row
    if state is None:
        return rows
    inputs = state.user_inputs(columns)
    fields = [f for f in model.spec.of_side("user", "dense") if f.name in inputs]
    behind = [np.reshape(inputs[f.name], (len(ids), f.width)) for f in fields]
    return np.concatenate([rows, *behind], axis=1, dtype=np.float32)


def set_inputs(batch: Batch, spec: FeatureSpec, inputs: Mapping[str, FloatArray]) -> None:
    """Set these dense fields of a batch in place; they were unknown when it was encoded.

    Inputs that the spec does not have are ignored: a model need not read them.
    """
    layout = Layout(spec)
    names = {f.name for f in layout.dense}
    for name in names & inputs.keys():
        batch.dense[:, layout.dense_slice(name)] = np.reshape(inputs[name], (len(batch), -1))
