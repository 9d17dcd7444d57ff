"""Static fields of a side as numbers: a column of ones, and one for each value that is frequent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from inttower.contract import Columns
from inttower.spec import FeatureSpec, Side

Floats = npt.NDArray[np.float64]


class Attributes:
    """One-hot (and multi-hot) codes of the sparse and multi fields of one side, its id apart.

    Args:
        spec: the fields.
        side: whose.
        most_values: values of a field that get a column, the most frequent ones.

    >>> from inttower.spec import Field
    >>> spec = FeatureSpec((
    ...     Field("user_id", "user", "sparse", is_id=True),
    ...     Field("item_id", "item", "sparse", is_id=True),
    ...     Field("genres", "item", "multi"),
    ... ))
    >>> attributes = Attributes(spec, "item")
    >>> attributes.collect({"genres": [["a"], ["a", "b"]]}, [0, 1])
    >>> attributes.fit()
    array([[1., 1., 0.],
           [1., 1., 1.]])
    >>> attributes.of({"item_id": ["x"], "genres": [["b", "c"]]})
    array([[1., 0., 1.]])
    """

    def __init__(self, spec: FeatureSpec, side: Side, most_values: int = 200) -> None:
        self._id = spec.id_field(side).name
        self._fields = [f for f in spec.of_side(side, "sparse", "multi") if not f.is_id]
        self.names = [f.name for f in self._fields]
        self._most = most_values
        self._places: list[dict[str, int]] = [{} for _ in self._fields]
        self._collected: list[list[tuple[str, ...]]] = [[] for _ in self._fields]
        self._count = 0

    def collect(self, columns: Columns, rows: Sequence[int]) -> None:
        """Take in the attributes of entities: those of these rows."""
        self._count += len(rows)
        for field, kept in zip(self._fields, self._collected, strict=True):
            column = cast(Sequence[Any], columns[field.name])
            if field.kind == "sparse":
                kept.extend((column[at],) for at in rows)
            else:
                kept.extend(tuple(column[at]) for at in rows)

    def fit(self) -> Floats:
        """Choose the values, and give the codes of all that was collected, float64 [n, A]."""
        taken, self._collected = self._collected, [[] for _ in self._fields]
        count, self._count = self._count, 0
        first = 1
        for k, entities in enumerate(taken):
            counts = Counter(value for values in entities for value in set(values) if value)
            # the most frequent, of equals the first by text
            frequent = sorted(counts, key=lambda value: (-counts[value], value))[: self._most]
            self._places[k] = {value: first + at for at, value in enumerate(sorted(frequent))}
            first += len(frequent)
        return self._codes(taken, count)

    def of(self, columns: Columns) -> Floats:
        """Codes of rows, float64 [n, A]; a value without a column adds nothing."""
        values: list[list[tuple[str, ...]]] = []
        for field in self._fields:
            column = cast(Sequence[Any], columns[field.name])
            values.append([(v,) for v in column] if field.kind == "sparse" else list(column))
        return self._codes(values, len(columns[self._id]))

    def _codes(self, values: Sequence[Sequence[Sequence[str]]], count: int) -> Floats:
        codes = np.zeros((count, 1 + sum(map(len, self._places))))
        codes[:, 0] = 1.0
        for places, rows in zip(self._places, values, strict=True):
            at = [(k, places[v]) for k, row in enumerate(rows) for v in row if v in places]
            if at:
                row, column = np.array(at).T
                codes[row, column] = 1.0
        return codes

    def state(self) -> bytes:
        """Which values have a column."""
        return msgspec.json.encode(self._places)

    def load_state(self, data: bytes) -> None:
        """The inverse of :meth:`state`."""
        self._places = msgspec.json.decode(data, type=list[dict[str, int]])
