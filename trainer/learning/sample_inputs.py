"""Model inputs of samples, live and as of the end of the warm-up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from features.catalogue import Catalogue
from features.declaration import Declaration, Entity
from features.model_inputs import (
    Columns,
    Contexts,
    RawRows,
    item_columns,
    static_columns,
    user_columns,
)
from features.samples import Shown
from inttower.state.user_state import UserState
from trainer.learning.latest_rows import LatestRows

Ensure = Callable[[Entity, Sequence[str], int], None]


class FrozenFeatures:
    """The raw features that users and items had when the warm-up ended.

    Args:
        declaration: of the log's features.
        limit: rows of users, and of items, at most.
    """

    def __init__(self, declaration: Declaration, limit: int) -> None:
        self.users = LatestRows(declaration, "user", limit)
        self.items = LatestRows(declaration, "item", limit)

    def update(self, samples: Sequence[Shown]) -> None:
        """Take in the features of rows of the warm-up."""
        times = [s.at for s in samples]
        features = [s.features for s in samples]
        self.users.update([s.user_id for s in samples], times, features)
        self.items.update([s.item_id for s in samples], times, features)

    def state(self) -> dict[str, bytes]:
        """All rows, for the checkpoint."""
        return {"users": self.users.state(), "items": self.items.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of :meth:`state`."""
        self.users.load_state(state["users"])
        self.items.load_state(state["items"])


class SampleInputs:
    """Makes columns of samples, with the static fields of a catalogue.

    Args:
        declaration: of the log's features.
        catalogue: static fields of users and items.
        ensure: called with the ids and the latest time (ms; 0: any) of a batch before they are
            looked up, so that the catalogue can fetch what it has not met.
    """

    def __init__(self, declaration: Declaration, catalogue: Catalogue, ensure: Ensure) -> None:
        self._declaration = declaration
        self._catalogue = catalogue
        self._ensure = ensure

    def live(self, samples: Sequence[Shown]) -> Columns:
        """With the features that the samples carry."""
        users, items = [s.user_id for s in samples], [s.item_id for s in samples]
        newest = max((s.ts for s in samples), default=0)
        self._ensure("user", users, newest)
        self._ensure("item", items, newest)
        features = [s.features for s in samples]
        return self._joined(
            RawRows.of(self._declaration, "user", users, features),
            RawRows.of(self._declaration, "item", items, features),
            [s.at for s in samples],
            [s.context for s in samples],
        )

    def frozen(self, samples: Sequence[Shown], then: FrozenFeatures) -> Columns:
        """With frozen features; "now" is the time of the user's row, so gaps are frozen, too.

        The context is the request's own and never frozen.
        """
        users, items = [s.user_id for s in samples], [s.item_id for s in samples]
        return self._joined(
            then.users.raw(users),
            then.items.raw(items),
            then.users.times(users),
            [s.context for s in samples],
        )

    def pairs(
        self,
        users: Sequence[str],
        items: Sequence[str],
        then: FrozenFeatures,
        state: UserState | None = None,
    ) -> Columns:
        """Users with items of equal place, features as they stood, state (if any) as it is now.

        There is no request, so the context is unknown.
        """
        columns = self._joined(
            then.users.raw(users), then.items.raw(items), then.users.times(users), None
        )
        if state is not None:
            columns |= state.user_inputs(columns)
            columns |= state.item_inputs(columns)
        return columns

    def items(
        self, ids: Sequence[str], rows: LatestRows, state: UserState | None = None
    ) -> Columns:
        """The item side alone, with each item's newest features."""
        self._ensure("item", ids, 0)
        columns = item_columns(self._declaration, rows.raw(ids), self._catalogue)
        return columns if state is None else {**columns, **state.item_inputs(columns)}

    def statics(self, side: Entity, ids: Sequence[str]) -> Columns:
        """Ids and static fields of users or items, without what events change."""
        self._ensure(side, ids, 0)
        return static_columns(self._declaration, side, ids, self._catalogue)

    def take_changed(self, side: Entity) -> set[str]:
        """Users or items whose static fields have changed since the last call."""
        return self._catalogue.take_changed(side)

    def catalogue_ids(self, side: Entity) -> list[str]:
        """All users or items that have static fields."""
        return self._catalogue.ids(side)

    def _joined(
        self, users: RawRows, items: RawRows, times: Sequence[int], contexts: Contexts
    ) -> Columns:
        now = np.array(times, np.int64)
        return {
            **user_columns(self._declaration, users, self._catalogue, now, contexts),
            **item_columns(self._declaration, items, self._catalogue, now),
        }
