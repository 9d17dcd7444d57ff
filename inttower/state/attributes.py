"""One-hot codes of a side's static fields: a column of ones, and one for each frequent value."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt

from inttower.core.contract import Columns
from inttower.core.spec import FeatureSpec, Side

Floats = npt.NDArray[np.float64]


# the values of one entity, a tuple for each field
Values = tuple[tuple[str, ...], ...]


class Attributes:
    """One-hot and multi-hot codes of the sparse and multi fields of one side, without its id.

    Args:
        spec: the fields.
        side: whose.
        most_values: values of a field that get a column, the most frequent ones.

    >>> from inttower.core.spec import Field
    >>> spec = FeatureSpec((
    ...     Field("user_id", "user", "sparse", is_id=True),
    ...     Field("item_id", "item", "sparse", is_id=True),
    ...     Field("genres", "item", "multi"),
    ... ))
    >>> attributes = Attributes(spec, "item")
    >>> attributes.fit(attributes.values({"genres": [["a"], ["a", "b"]]}, [0, 1]))
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

    def values(self, columns: Columns, rows: Iterable[int]) -> list[Values]:
        """The attributes of the entities in these rows, as text."""
        read = [(f.kind, cast(Sequence[Any], columns[f.name])) for f in self._fields]
        return [
            tuple((c[at],) if kind == "sparse" else tuple(c[at]) for kind, c in read) for at in rows
        ]

    def fit(self, entities: Sequence[Values]) -> Floats:
        """Choose the values that get a column; returns the entities' codes, float64 [n, A]."""
        first = 1
        for k in range(len(self._fields)):
            counts = Counter(value for values in entities for value in set(values[k]) if value)
            # the most frequent; of equals the first by text
            frequent = sorted(counts, key=lambda value: (-counts[value], value))[: self._most]
            self._places[k] = {value: first + at for at, value in enumerate(sorted(frequent))}
            first += len(frequent)
        return self._codes(entities)

    def of(self, columns: Columns) -> Floats:
        """Codes of rows, float64 [n, A]; a value without a column adds nothing."""
        return self._codes(self.values(columns, range(len(columns[self._id]))))

    def _codes(self, entities: Sequence[Values]) -> Floats:
        codes = np.zeros((len(entities), 1 + sum(map(len, self._places))))
        codes[:, 0] = 1.0
        at = [
            (row, places[value])
            for row, fields in enumerate(entities)
            for places, values in zip(self._places, fields, strict=True)
            for value in values
            if value in places
        ]
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
