"""Serving encoder, published user and published item, and the score of the two.

A published item is one row of W float32 numbers: H·p numbers of its heads, then a tail of T
numbers. A published user has heads and a tail, whose dot product with the item's tail is added to
the FE score. Every decoupled model fits: a two-tower model is all tail; IntTower's bias, FM skip
and dots are its tail.

    score = Σ_i w_i Σ_a max_b ⟨u^{i,a}, v^b⟩ + ⟨tail_u, tail_v⟩ + bias_u

Encoders are numpy: a single user takes a tenth of a millisecond, in which torch would make its
first few calls.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar, TypedDict, cast

import numpy as np
import numpy.typing as npt

from inttower.core.batch import FloatArray, Layout
from inttower.core.spec import FeatureSpec, Field, Side
from inttower.errors import SpecError
from inttower.publish.scorer import fe_scores

# Returns the learnt rows [k, R] of the known ids among those given
RowsOf = Callable[[Sequence[str]], FloatArray]

_CLIP = np.float32(5)  # as in training


@dataclass(frozen=True, slots=True)
class UserVector:
    """One encoded user: what a request's items are scored against.

    Attributes:
        heads: float32 [L, H, p]; L is 0 for models without heads.
        layer_weights: float32 [L], with every scale folded in.
        tail: float32 [T].
        bias: added to every score.
    """

    heads: FloatArray
    layer_weights: FloatArray
    tail: FloatArray
    bias: float


def score(user: UserVector, items: FloatArray) -> FloatArray:
    """Logits of N published items [N, W] for one user, float32 [N]."""
    size = user.heads.shape[1] * user.heads.shape[2] if len(user.heads) else 0
    scores = items[:, size:] @ user.tail
    scores += np.float32(user.bias)
    if size:
        scores += fe_scores(user.heads, items[:, :size], user.layer_weights)
    return cast(FloatArray, scores)


class EncoderArguments(TypedDict):
    """The arguments of a :class:`ServingEncoder`."""

    spec: FeatureSpec
    config: dict[str, Any]
    arrays: dict[str, FloatArray]
    vocabularies: dict[str, list[str]]


class ServingEncoder(ABC):
    """A decoupled model's weights at one moment, as encoders of users and items.

    Args:
        spec: the fields.
        config: the model's, as plain JSON values.
        arrays: ``net.*`` the network's weights by name, ``scaling`` [2, n] mean and scale of the
            dense columns, ``rows.FIELD`` the rows [k, R] of each field's ids (of the two id
            fields the unknown row alone), row 0 the unknown one.
        vocabularies: the ids of each other field in the order of its rows from 1 on.
    """

    model: ClassVar[str]

    def __init__(
        self,
        spec: FeatureSpec,
        config: Mapping[str, Any],
        arrays: Mapping[str, FloatArray],
        vocabularies: Mapping[str, Sequence[str]],
    ) -> None:
        self.spec = spec
        self.config = dict(config)
        self.arrays = dict(arrays)
        self.vocabularies = {name: list(ids) for name, ids in vocabularies.items()}
        self._layout = Layout(spec)
        self._slots = {
            name: {text: i for i, text in enumerate(ids, 1)}
            for name, ids in self.vocabularies.items()
        }
        if any(f.kind == "sequence" for f in spec.of_side("item")):
            raise SpecError("an item with a sequence field cannot be published as a vector")

    @property
    @abstractmethod
    def item_width(self) -> int:
        """W: numbers in a published item."""

    @property
    @abstractmethod
    def row_width(self) -> int:
        """R: numbers in a learnt row of an id."""

    @abstractmethod
    def user_vector(
        self, columns: Mapping[str, Any], id_row: FloatArray | None, rows_of: RowsOf
    ) -> UserVector:
        """Encode one user.

        Args:
            columns: the user side's fields, each with one row.
            id_row: the user's learnt row [R]; None: the unknown row. It may be longer: the further
                numbers are the dense fields that ``columns`` leaves out, in the spec's order (a
                user state, which the trainer keeps and sends with the row).
            rows_of: returns learnt rows of item ids, for the user's history.
        """

    @abstractmethod
    def item_vectors(self, columns: Mapping[str, Any], id_rows: FloatArray | None) -> FloatArray:
        """Encode n items to float32 [n, W].

        Args:
            columns: the item side's fields, each with n rows.
            id_rows: their learnt rows [n, R]; None: the unknown row for all.
        """

    def unknown_item(self) -> FloatArray:
        """The vector of an item about which nothing is known, float32 [W]."""
        columns: dict[str, Any] = {}
        for field in self.spec.of_side("item"):
            if field.kind == "dense":
                columns[field.name] = np.full((1, field.width), np.nan, np.float32)
            else:
                columns[field.name] = [""] if field.kind == "sparse" else [[]]
        return cast(FloatArray, self.item_vectors(columns, None)[0])

    # ------------------------------------------------------------------ inputs of a side

    def _embed(
        self,
        side: Side,
        columns: Mapping[str, Any],
        id_rows: FloatArray | None,
        rows_of: RowsOf | None,
    ) -> FloatArray:
        """Every embedded field of one side, float32 [B, m, R]."""
        fields = [f for f in self.spec.of_side(side) if f.kind != "dense"]
        count = len(_column(columns, fields[0]))
        width = self.row_width
        out = np.zeros((count, len(fields), width), np.float32)
        for j, field in enumerate(fields):
            if field.is_id:
                out[:, j] = (
                    self.arrays[f"rows.{field.name}"][0]
                    if id_rows is None
                    else id_rows[..., :width]
                )
                continue
            column = _column(columns, field)
            if field.kind == "sparse":
                out[:, j] = self._rows(field.name, column)
                continue
            for i, texts in enumerate(column):
                rows = self._list_rows(field, list(islice(texts, field.max_length)), rows_of)
                if len(rows):
                    out[i, j] = rows.mean(0)
        return out

    def _rows(self, name: str, texts: Sequence[str]) -> FloatArray:
        get = self._slots[name].get
        return self.arrays[f"rows.{name}"][[get(text, 0) for text in texts]]

    def _list_rows(self, field: Field, texts: list[str], rows_of: RowsOf | None) -> FloatArray:
        if field.kind == "multi":
            return self._rows(field.name, texts)
        if self.spec.field(field.of).is_id:
            if rows_of is None:
                raise SpecError(f"field {field.name!r} needs the learnt rows of {field.of!r}")
            return rows_of(texts)
        slots = self._slots[field.of]
        return self._rows(field.of, [t for t in texts if t in slots])

    def _dense(
        self, side: Side, columns: Mapping[str, Any], id_rows: FloatArray | None
    ) -> tuple[FloatArray, FloatArray]:
        """Scaled and raw dense numbers of one side, float32 [B, n] each."""
        rows = len(_column(columns, self.spec.id_field(side)))
        given = np.full((rows, self._layout.dense_columns), np.nan, np.float32)
        at = self.row_width
        for field in self.spec.of_side(side, "dense"):
            part = given[:, self._layout.dense_slice(field.name)]
            if field.name in columns:
                values = np.asarray(columns[field.name], np.float32)
                if values.size != part.size:
                    raise SpecError(
                        f"column {field.name!r} has shape {values.shape}, not {part.shape}"
                    )
                part[:] = values.reshape(part.shape)
            elif id_rows is not None:
                behind = id_rows[..., at : at + field.width]
                if behind.shape[-1] != field.width:
                    raise SpecError(
                        f"column {field.name!r} is missing, and the id rows do not hold it either"
                    )
                part[:] = behind
                at += field.width
        whole = self._layout.dense_of(side)
        given = given[:, whole]
        missing = np.isnan(given)
        mean, scale = self.arrays["scaling"][:, whole]
        scaled = np.clip((given - mean) * scale, -_CLIP, _CLIP)
        zero = np.float32(0)
        return np.where(missing, zero, scaled), np.where(missing, zero, given)

    def _net(self, name: str) -> FloatArray:
        return self.arrays[f"net.{name}"]


def _column(columns: Mapping[str, Any], field: Field) -> Sequence[Any]:
    try:
        return cast(Sequence[Any], columns[field.name])
    except KeyError:
        raise SpecError(
            f"column {field.name!r} is missing; there are {', '.join(sorted(columns))}"
        ) from None


def frozen(arrays: Mapping[str, npt.NDArray[np.generic]]) -> dict[str, FloatArray]:
    """Read-only float32 copies."""
    copies = {}
    for name, value in arrays.items():
        copy = np.array(value, np.float32)
        copy.flags.writeable = False
        copies[name] = copy
    return copies
