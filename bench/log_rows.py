"""Rows of a log as a model reads them, with features as of any time up to each impression."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from features.declaration import Declaration, Entity
from features.log_arrays import LogArrays
from features.model_inputs import (
    Columns,
    RawRows,
    Values,
    item_columns,
    model_spec,
    static_columns,
    user_columns,
)
from features.offline import OfflineFeatures
from inttower.core.batch import Batch
from inttower.core.contract import Columns as ModelColumns
from inttower.core.contract import Model
from inttower.core.spec import FeatureSpec

Rows = NDArray[np.int64]
Times = NDArray[np.int64]

# rows at a time: large enough for array work, and memory is bounded
CHUNK = 8192


class LogRows:
    """The impressions of a log with the declared features.

    Args:
        declaration: of the features.
        log: all events; a feature depends on earlier ones only.

    Attributes:
        spec: the fields of :meth:`columns`.
    """

    def __init__(self, declaration: Declaration, log: LogArrays) -> None:
        self.declaration = declaration
        self.log = log
        self.spec: FeatureSpec = model_spec(declaration)
        self._history = OfflineFeatures(declaration, log)
        self._user_texts = np.array(log.user_ids, object)
        self._item_texts = np.array(log.item_ids, object)

    def __len__(self) -> int:
        return len(self.log)

    @property
    def ts(self) -> Times:
        """Time of each impression, ms, rising."""
        return self.log.impressions.ts

    def shown_before(self, rows: Rows) -> NDArray[np.int64]:
        """How many impressions the user of each row had strictly before it, int64 [B]."""
        return self._history.shown_before(self.log.impressions.users[rows], self.ts[rows])

    def columns(self, rows: Rows, at: Times | None = None, now: Times | None = None) -> Columns:
        """The model's input of these rows.

        Args:
            rows: int64 [B].
            at: features as of this time, int64 [B]; default, and latest: the row's own time.
            now: time gaps end here, int64 [B]; default: the row's own time.
        """
        shown = self.log.impressions
        users, items, own = shown.users[rows], shown.items[rows], shown.ts[rows]
        then = own if at is None else np.minimum(at, own)
        user_rows, item_rows = self._raw("user", users, then), self._raw("item", items, then)
        catalogue, contexts = self.log.catalogue, self.log.contexts
        return {
            **user_columns(
                self.declaration,
                user_rows,
                catalogue,
                own if now is None else now,
                [contexts[row] for row in rows.tolist()] if contexts else None,
            ),
            **item_columns(self.declaration, item_rows, catalogue),
        }

    def texts(self, rows: Rows) -> Columns:
        """Ids and static fields of these rows: what events do not change."""
        shown, catalogue = self.log.impressions, self.log.catalogue
        users = self._user_texts[shown.users[rows]].tolist()
        items = self._item_texts[shown.items[rows]].tolist()
        return {
            **static_columns(self.declaration, "user", users, catalogue),
            **static_columns(self.declaration, "item", items, catalogue),
        }

    def _raw(self, entity: Entity, codes: NDArray[np.int32], at: Times) -> RawRows:
        texts = self._user_texts if entity == "user" else self._item_texts
        columns = [
            self._lists(values) if values.ndim == 2 else values.tolist()
            for values in self._history.values(entity, codes, at)
        ]
        values: list[Values] = list(zip(*columns, strict=True)) or [()] * len(codes)
        return RawRows(texts[codes].tolist(), values)

    def _lists(
        self, codes: NDArray[np.int64] | NDArray[np.float64] | NDArray[np.int32]
    ) -> list[list[str]]:
        lengths = (codes >= 0).sum(1).tolist()
        texts = self._item_texts[codes].tolist()
        return [row[:n] for row, n in zip(texts, lengths, strict=True)]

    def encoded(
        self,
        model: Model,
        rows: Rows,
        *,
        admit: bool,
        at: Times | None = None,
        now: Times | None = None,
    ) -> Batch:
        """These rows encoded by a model, chunk by chunk; see :meth:`columns`."""
        parts = []
        for part in chunks(len(rows), CHUNK):
            then = None if at is None else at[part]
            columns = self.columns(rows[part], then, None if now is None else now[part])
            parts.append(model.encode(columns, admit))
        return Batch.concat(parts)


def chunks(count: int, size: int) -> Iterator[slice]:
    """Slices that cover ``count`` rows.

    >>> list(chunks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def whole_moments(ts: Times, start: int, stop: int, size: int) -> Iterator[slice]:
    """Parts of rows ``start`` to ``stop``, each of ``size`` rows or a few more.

    None splits rows of one time: a model that learnt a part of a request before it predicts the
    rest would know what it cannot know.

    >>> list(whole_moments(np.array([1, 2, 2, 2, 3]), 0, 5, 2))
    [slice(0, 4, None), slice(4, 5, None)]
    """
    while start < stop:
        end = min(start + size, stop)
        while end < stop and ts[end] == ts[end - 1]:
            end += 1
        yield slice(start, end)
        start = end


def part_of(columns: ModelColumns, part: slice) -> Columns:
    """Some rows of columns."""
    return {name: values[part] for name, values in columns.items()}


def warm_up_end(log: LogArrays, fraction: float) -> int:
    """The first row after the warm-up; rows of one millisecond are never split.

    Rows of one moment know nothing of each other. Splitting them would put siblings of learnt rows
    into the stream.
    """
    ts = log.impressions.ts
    return int(np.searchsorted(ts, ts[min(int(len(ts) * fraction), len(ts) - 1)]))
