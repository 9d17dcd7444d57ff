"""The live model: one version and the deltas on top of it, which is all that a ranking reads.

A :class:`LiveModel` is changed only by :meth:`LiveModel.apply` and :meth:`LiveModel.admit`. The
follower calls them in its own thread until the model is installed in a channel, and on the event
loop, each as one synchronous step, from then on. Rankings run on the event loop too and never
await between their first and last look at a model: so a request sees exactly one base version and
one delta number.
"""

from __future__ import annotations

import time
from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.declaration import Declaration
from features.model_inputs import Columns, RawRows, item_columns, never_seen, user_columns
from inttower.publish.bundle import LoadedVersion
from inttower.publish.published import UserVector, score
from serving.model.row_table import NEVER, RowTable
from settings.errors import EventError
from streaming.events import Delta

_Floats = NDArray[np.float32]
# what a float holds exactly; later than any clock
_LATEST_MS = 2**53


@dataclass(frozen=True, slots=True)
class DeltaRows:
    """A delta whose arrays have been unpacked. Shapes as in :class:`streaming.events.Delta`."""

    number: int
    channel: str
    base_version: str
    created_ms: int
    user_ids: Sequence[str]
    user_ts: NDArray[np.int64]
    user_rows: _Floats
    item_ids: Sequence[str]
    item_ts: NDArray[np.int64]
    item_vectors: _Floats
    item_rows: _Floats


def unpack(delta: Delta, number: int) -> DeltaRows:
    """The arrays of a delta.

    Raises:
        EventError: lengths that do not fit each other, times that cannot be, or numbers that are
            not finite.
    """
    users, items = len(delta.user_ids), len(delta.item_ids)
    if len(delta.user_ts) != users or len(delta.item_ts) != items:
        raise EventError("ids and times differ in number", reason="lengths")
    if not 0 <= delta.created_ms <= _LATEST_MS:
        raise EventError(f"created_ms is {str(delta.created_ms)[:20]}: no time", reason="time")
    return DeltaRows(
        number=number,
        channel=delta.channel,
        base_version=delta.base_version,
        created_ms=delta.created_ms,
        user_ids=delta.user_ids,
        user_ts=_times("user_ts", delta.user_ts),
        user_rows=_matrix("user_rows", delta.user_rows, users),
        item_ids=delta.item_ids,
        item_ts=_times("item_ts", delta.item_ts),
        item_vectors=_matrix("item_vectors", delta.item_vectors, items),
        item_rows=_matrix("item_rows", delta.item_rows, items),
    )


def _times(name: str, times: Sequence[int]) -> NDArray[np.int64]:
    try:
        return np.array(times, np.int64)
    except OverflowError:
        raise EventError(f"{name} holds {str(max(times))[:20]}…: no time", reason="time") from None


def _matrix(name: str, data: bytes, rows: int) -> _Floats:
    if len(data) % (4 * rows or 1) or (data and not rows):
        raise EventError(
            f"{name} has {len(data)} bytes, no multiple of {rows} rows of float32",
            reason="lengths",
        )
    matrix = np.frombuffer(data, "<f4").reshape(rows, -1 if rows else 0)
    if not np.isfinite(matrix).all():
        raise EventError(f"{name} holds numbers that are not finite", reason="not_finite")
    return matrix


class LiveModel:
    """A version, brought up to date delta by delta.

    Args:
        served: the version, checked.
        declaration: of the log.
        catalogue: attributes of items that the version has not learnt of.
    """

    def __init__(
        self, served: LoadedVersion, declaration: Declaration, catalogue: Catalogue
    ) -> None:
        self.version = served.manifest.version
        self.created_ms = served.manifest.created_ms
        self.updates_offset = served.manifest.updates_offset
        self.base = served.base
        self.loaded_ms = time.time_ns() // 1_000_000
        self.delta = -1
        # the last delta that the follower has looked at for this model, also if it was refused
        self.seen = -1
        self.delta_created_ms: int | None = None
        self._declaration = declaration
        self._catalogue = catalogue
        self._blank = never_seen(declaration, "item")
        self.items = RowTable(
            [self._encode([""])[0], np.zeros(served.item_rows.shape[1], np.float32)],
            served.item_ids,
            [served.item_vectors, served.item_rows],
        )
        self.users = RowTable(
            [np.zeros(served.user_rows.shape[1], np.float32)], served.user_ids, [served.user_rows]
        )
        # items that have a vector by their attributes alone, and no learnt row
        self._cold = {served.item_ids[at] for at in np.flatnonzero(~served.learnt_items).tolist()}
        self.admit(*self.cold_items())
        # a version that cannot encode users must fail here, not at each request
        blank = RawRows([""], [never_seen(declaration, "user")])
        columns = user_columns(declaration, blank, catalogue, np.zeros(1, np.int64))
        for name in ("", *served.user_ids[:1]):
            self.user_vector(name, columns)

    def _encode(self, ids: Sequence[str]) -> _Floats:
        """Vectors of items without events, by their attributes alone: [n, W]."""
        raw = RawRows(ids, [self._blank] * len(ids))
        columns = item_columns(self._declaration, raw, self._catalogue)
        return self.base.item_vectors(columns, None)

    def cold_items(self, changed: Set[str] = frozenset()) -> tuple[list[str], _Floats]:
        """Items to be encoded by their attributes alone, and their vectors [n, W].

        Those are the items of the catalogue without a row, and of the ``changed`` ones those of
        which nothing was learnt: of the others the trainer sends a new vector. Changes nothing.
        """
        ids = [name for name in self._catalogue.ids("item") if name not in self.items]
        ids += sorted(self._cold & changed)
        return ids, self._encode(ids) if ids else np.zeros((0, self.base.item_width), np.float32)

    def admit(self, ids: Sequence[str], vectors: _Floats) -> None:
        """Take in what :meth:`cold_items` gave, except items that a delta has brought meanwhile."""
        new = [at for at, name in enumerate(ids) if not self.knows_item(name)]
        names = [ids[at] for at in new]
        self._cold.update(names)
        rows = np.zeros((len(names), self.items.matrices[1].shape[1]), np.float32)
        self.items.update(names, [NEVER] * len(names), [vectors[new], rows])

    @property
    def learnt_items(self) -> int:
        """Items with a learnt row."""
        return len(self.items) - len(self._cold)

    def knows_item(self, name: str) -> bool:
        """Whether anything was learnt of this item."""
        return name in self.items and name not in self._cold

    def user_vector(self, user_id: str, columns: Columns) -> UserVector:
        """Encode one user from the columns of :func:`features.model_inputs.user_columns`."""
        row = int(self.users.find([user_id])[0])
        id_row = self.users.matrices[0][row] if row else None
        return self.base.user_vector(columns, id_row, self._history_rows)

    def _history_rows(self, ids: Sequence[str]) -> _Floats:
        """Learnt rows of those of the items that are known, [k, D]."""
        return self.items.matrices[1][self.items.find([i for i in ids if self.knows_item(i)])]

    def logits(self, user: UserVector, rows: NDArray[np.intp] | None) -> _Floats:
        """Scores of items by their rows; None: of all items, rows from 1 on."""
        matrix = self.items.matrices[0]
        return score(user, matrix[1:] if rows is None else matrix[rows])

    def check(self, delta: DeltaRows) -> None:
        """Whether a delta fits this version.

        Raises:
            EventError: a width differs.
        """
        widths = [m.shape[1] for m in (*self.users.matrices, *self.items.matrices)]
        given = [delta.user_rows, delta.item_vectors, delta.item_rows]
        for name, width, matrix in zip(
            ("user_rows", "item_vectors", "item_rows"), widths, given, strict=True
        ):
            if len(matrix) and matrix.shape[1] != width:
                raise EventError(
                    f"{name} are {matrix.shape[1]} wide, those of version {self.version} {width}",
                    reason="width",
                )

    def apply(self, delta: DeltaRows) -> int:
        """Take in a delta that has been checked; gives the number of rows that were too old."""
        stale = 0
        if delta.user_ids:
            stale += self.users.update(delta.user_ids, delta.user_ts, [delta.user_rows])
        if delta.item_ids:
            self._cold.difference_update(delta.item_ids)
            fresh = [delta.item_vectors, delta.item_rows]
            stale += self.items.update(delta.item_ids, delta.item_ts, fresh)
        self.delta = delta.number
        self.delta_created_ms = delta.created_ms
        return stale
