"""The snapshot of a model that a version holds, in memory: encoders, learnt rows, item vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from inttower.core.batch import SIDES, FloatArray
from inttower.core.contract import Columns, Decoupled, Model
from inttower.errors import NotDecoupledError, SpecError
from inttower.publish.published import ServingEncoder, score

# Items encoded at a time
_CHUNK = 8192


@dataclass(frozen=True)
class ModelSnapshot:
    """A snapshot of a model, ready to be written as a version.

    Attributes:
        base: the encoders.
        user_ids: users with a learnt row.
        user_rows: float32 [n, R]; wider if a user state follows the learnt row.
        item_ids: items with a vector.
        item_vectors: float32 [m, W].
        item_rows: float32 [m, R], for users' histories.
    """

    base: ServingEncoder
    user_ids: Sequence[str]
    user_rows: FloatArray
    item_ids: Sequence[str]
    item_vectors: FloatArray
    item_rows: FloatArray

    @cached_property
    def _item_at(self) -> dict[str, int]:
        return {self.item_ids[i]: i for i in np.flatnonzero(self.learnt_items).tolist()}

    @cached_property
    def learnt_items(self) -> npt.NDArray[np.bool_]:
        """Which items have a learnt row, [m]; the others have the unknown row."""
        name = self.base.spec.id_field("item").name
        unknown = self.base.arrays.get(f"rows.{name}")
        if unknown is None or not self.base.row_width:
            return np.ones(len(self.item_ids), np.bool_)
        learnt: npt.NDArray[np.bool_] = (self.item_rows != unknown[0]).any(axis=1)
        return learnt

    @cached_property
    def _user_at(self) -> dict[str, int]:
        return {text: i for i, text in enumerate(self.user_ids)}

    def rows_of_items(self, ids: Sequence[str]) -> FloatArray:
        """Learnt rows of the known items among these, float32 [k, R]."""
        return self.item_rows[[self._item_at[i] for i in ids if i in self._item_at]]

    def logits(self, columns: Columns) -> FloatArray:
        """Logits of pairs given by the columns of both sides, float32 [B]; a pair at a time."""
        users, items = (
            {f.name: columns[f.name] for f in self.base.spec.of_side(side)} for side in SIDES
        )
        user_id, item_id = (self.base.spec.id_field(side).name for side in SIDES)
        out = []
        for at, (user, item) in enumerate(zip(columns[user_id], columns[item_id], strict=True)):
            row = self._user_at.get(str(user))
            vector = self.base.user_vector(
                {name: column[at : at + 1] for name, column in users.items()},
                None if row is None else self.user_rows[row],
                self.rows_of_items,
            )
            known = self.rows_of_items([str(item)])
            encoded = self.base.item_vectors(
                {name: column[at : at + 1] for name, column in items.items()},
                known if len(known) else None,
            )
            out.append(score(vector, encoded)[0])
        return np.array(out, np.float32)


def contents(
    model: Model,
    items: Columns,
    user_rows: FloatArray | None = None,
    user_ids: Sequence[str] | None = None,
) -> ModelSnapshot:
    """Take a snapshot of a model.

    Args:
        model: the model.
        items: the item side's columns of every item that the model knows, and of others that should
            have a vector too.
        user_rows: rows of the users that servers need, if they are more than the learnt rows.
        user_ids: whose; none: all that the model knows.

    Raises:
        NotDecoupledError: the model has no user side and item side to be published.
        SpecError: an item that the model knows is not among the items.
    """
    if not isinstance(model, Decoupled):
        raise NotDecoupledError(
            f"a {type(model).__name__} reads user and item together, so there are no vectors to"
            " publish: take a decoupled model, such as IntTower, or score pairs by predict()"
        )
    base = model.serving_encoder()
    item_ids = [str(i) for i in items[model.spec.id_field("item").name]]
    missing = set(model.known_ids("item")).difference(item_ids)
    if missing:
        raise SpecError(
            f"{len(missing)} items that the model knows have no columns, {min(missing)!r} is one:"
            " give the columns of all its known ids"
        )
    item_rows = model.item_id_rows(item_ids)
    parts = [np.zeros((0, base.item_width), np.float32)]
    for start in range(0, len(item_ids), _CHUNK):
        part = slice(start, start + _CHUNK)
        some = {f.name: items[f.name][part] for f in model.spec.of_side("item")}
        parts.append(base.item_vectors(some, item_rows[part]))
    user_ids = model.known_ids("user") if user_ids is None else user_ids
    return ModelSnapshot(
        base=base,
        user_ids=user_ids,
        user_rows=model.user_id_rows(user_ids) if user_rows is None else user_rows,
        item_ids=item_ids,
        item_vectors=np.concatenate(parts),
        item_rows=item_rows,
    )
