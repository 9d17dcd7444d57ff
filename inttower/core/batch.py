"""A batch of encoded rows: ids are already rows of the embedding table.

A batch is two plain arrays, so that a mini-batch is one slice of each. Every field that is not
dense has columns of its own in ``rows``: a sparse field one, a multi or sequence field
``max_length`` of them, filled from the left and padded with -1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from inttower.core.spec import FeatureSpec, Field, Side
from inttower.errors import SpecError, StaleBatchError

FloatArray = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int32]
IntArray = npt.NDArray[np.int64]

SIDES: tuple[Side, Side] = ("user", "item")
EMPTY = -1


@dataclass(frozen=True, eq=False)
class Batch:
    """B encoded rows.

    Attributes:
        rows: int32 [B, K], rows of the embedding table; -1 is padding.
        dense: float32 [B, n], as given: not yet scaled.
        generation: how often the table had evicted ids when this was encoded.
    """

    rows: RowArray
    dense: FloatArray
    generation: int

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: IntArray | slice) -> Batch:
        """The rows of ``index``, in its order."""
        return Batch(self.rows[index], self.dense[index], self.generation)

    @classmethod
    def concat(cls, batches: Sequence[Batch]) -> Batch:
        """Join batches, row after row.

        Raises:
            SpecError: there is none.
            StaleBatchError: ids were evicted between the encoding of one and the next.
        """
        if not batches:
            raise SpecError("no batches to put together: give at least one")
        if len({b.generation for b in batches}) > 1:
            raise StaleBatchError(
                "ids were evicted between the encoding of these batches: encode them again"
            )
        return cls(
            np.concatenate([b.rows for b in batches]),
            np.concatenate([b.dense for b in batches]),
            batches[0].generation,
        )


@dataclass(frozen=True)
class Layout:
    """Which columns of a batch belong to which field: the user side first, then the item side."""

    spec: FeatureSpec

    @cached_property
    def embedded(self) -> tuple[Field, ...]:
        """The fields that the embedding table holds, in the order of their columns."""
        return tuple(f for side in SIDES for f in self.spec.of_side(side) if f.kind != "dense")

    @cached_property
    def dense(self) -> tuple[Field, ...]:
        """The dense fields, in the order of their columns."""
        return tuple(f for side in SIDES for f in self.spec.of_side(side, "dense"))

    @cached_property
    def starts(self) -> IntArray:
        """First column of each embedded field, int64 [m]."""
        return self._ends - self._widths

    @cached_property
    def _widths(self) -> IntArray:
        return np.array(
            [1 if f.kind == "sparse" else f.max_length for f in self.embedded], np.int64
        )

    @cached_property
    def _ends(self) -> IntArray:
        return np.cumsum(self._widths, dtype=np.int64)

    @cached_property
    def columns(self) -> int:
        """K, the number of columns of ``Batch.rows``."""
        return int(self._widths.sum())

    @cached_property
    def dense_columns(self) -> int:
        """n, the number of columns of ``Batch.dense``."""
        return sum(f.width for f in self.dense)

    def row_slice(self, name: str) -> slice:
        """Columns of ``Batch.rows`` that hold this field."""
        index = [f.name for f in self.embedded].index(name)
        return slice(int(self.starts[index]), int(self._ends[index]))

    def dense_slice(self, name: str) -> slice:
        """Columns of ``Batch.dense`` that hold this field."""
        start = 0
        for field in self.dense:
            if field.name == name:
                return slice(start, start + field.width)
            start += field.width
        raise SpecError(
            f"{name!r} is not a dense field; there are {', '.join(f.name for f in self.dense)}"
        )

    def fields_of(self, side: Side) -> slice:
        """Positions in :attr:`embedded` of one side's fields."""
        users = len([f for f in self.embedded if f.side == "user"])
        return slice(0, users) if side == "user" else slice(users, len(self.embedded))

    def dense_of(self, side: Side) -> slice:
        """Columns of ``Batch.dense`` of one side."""
        users = sum(f.width for f in self.dense if f.side == "user")
        return slice(0, users) if side == "user" else slice(users, self.dense_columns)

    def dense_matrix(self, columns: Mapping[str, object], count: int) -> FloatArray:
        """The dense columns side by side, float32 [B, n].

        Raises:
            SpecError: one is missing, or of another shape or type.
        """
        out = np.empty((count, self.dense_columns), np.float32)
        for field in self.dense:
            try:
                values = np.asarray(columns[field.name], np.float32)
            except KeyError:
                raise SpecError(
                    f"column {field.name!r} is missing; there are {', '.join(sorted(columns))}"
                ) from None
            except (TypeError, ValueError) as error:
                raise SpecError(f"column {field.name!r} must hold numbers: {error}") from None
            if values.size != count * field.width or len(values) != count:
                raise SpecError(
                    f"column {field.name!r} has shape {values.shape}, not {(count, field.width)}"
                )
            out[:, self.dense_slice(field.name)] = values.reshape(count, field.width)
        return out
