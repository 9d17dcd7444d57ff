"""Learning settings that are the same for every network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from inttower.core.spec import Side
from inttower.errors import SpecError

Products = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Training:
    """Learning settings; the figures were measured on MovieLens-1M.

    Args:
        epochs: of the warm-up. More of them overfit, even with id-dropout.
        batch_size: of the warm-up.
        lr: Adam's rate in the first half of the warm-up.
        lr_end: Adam's rate at the end of the warm-up; the second half falls to it linearly.
        lr_stream: Adam's rate in the stream. Ten times as much costs .004 AUC.
        lr_rows: row-wise Adagrad's rate, for the embedding table. IntTower+ reaches an AUC of
            .8909 at .05 and .8929 at .1, predicted before learnt.
        id_dropout: share of the user and item ids that the warm-up replaces by the unknown one,
            so that the unknown row learns what a new id is like.
        limit: most ids a field.
        admit_after: sightings before an id gets its row.
        expire_after: sightings of other ids after which an id is evicted; None: never.
        unread: sides whose own id is not read, only its other fields. With a user state, learnt
            rows of users cost .0005 AUC and .0012 GAUC.
        products: precision of the warm-up's matrix products. ``"bfloat16"`` rounds factors and
            results to 8 bits; it is faster on a processor with instructions for it and with large
            batches. Weights, optimisers, IntTower's scores and the whole stream stay float32.
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
        """These settings for a model that reads a user state (:mod:`inttower.state.user_state`).

        The user's own row is not read, since the state says more about the user. The other rows
        have less left to explain and learn half as fast: .1 instead of .05 costs .0005 AUC.

        >>> Training().beside_user_state().lr_rows
        0.05
        """
        return replace(self, unread=("user",), lr_rows=self.lr_rows / 2)
