"""How a model learns: what is the same for every network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from inttower.core.spec import Side
from inttower.errors import SpecError

Products = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Training:
    """How a model learns; the numbers were measured on MovieLens-1M.

    Args:
        epochs: of the warm-up. More are harmful even with id-dropout.
        batch_size: of the warm-up.
        lr: Adam's in the first half of the warm-up.
        lr_end: at its end; the second half falls to it in a straight line.
        lr_stream: of the stream. Ten times as much costs .004 AUC.
        lr_rows: row-wise Adagrad's, for the table. Predicted before learnt, IntTower+ reaches an
            AUC of .8909 at .05 and .8929 at .1.
        id_dropout: part of the user and item ids that the warm-up takes for unknown ones, so
            that the unknown row learns to stand for a new id.
        limit: ids a field at most.
        admit_after: sightings before an id gets its row.
        expire_after: sightings of others after which an id goes; None: never.
        unread: sides whose own id is not read: an entity is then what its other fields say. Beside
            a user state, learnt rows of users cost .0005 AUC and .0012 GAUC on MovieLens-1M.
        products: what the warm-up's matrix products are computed in. With ``"bfloat16"`` their
            factors and results are rounded to 8 bits; it is faster where the processor has
            instructions for it and batches are large. Weights, their optimisers and the whole
            stream are float32 either way, and so are IntTower's scores.
    """

    epochs: int = 2
    batch_size: int = 512
    lr: float = 1e-3
    lr_end: float = 1e-4
    lr_stream: float = 1e-4
    lr_rows: float = 0.1
    id_dropout: float = 0.2
    limit: int = 1_000_000
    admit_after: int = 1
    expire_after: int | None = None
    unread: tuple[Side, ...] = ()
    products: Products = "float32"

    def __post_init__(self) -> None:
        if self.products not in get_args(Products):
            raise SpecError(
                f"products in {self.products!r} are not known: use one of"
                f" {', '.join(get_args(Products))}"
            )

    def beside_user_state(self) -> Training:
        """The same for a model that is given a user state (:mod:`inttower.state.user_state`).

        The state says more of a user than a row of its own, which is not read; the other rows are
        left with less to say and learn half as fast: .1 instead of .05 costs .0005 AUC.

        >>> Training().beside_user_state().lr_rows
        0.05
        """
        return replace(self, unread=("user",), lr_rows=self.lr_rows / 2)
