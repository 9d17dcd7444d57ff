"""The contract of everything here that learns: predict, then learn, on batches.

    batch = model.encode(columns, admit=True)   # text to rows; new ids get a row
    logits = model.predict(batch)               # changes nothing: record it
    model.learn(batch, labels)                  # one step

A stream that does both takes ``predict_then_learn``, which needs one pass less.
``fit`` is the warm-up before such a stream. ``state`` is everything that has been learnt, as
plain arrays and bytes: two models of equal state go on to equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from inttower.core.batch import Batch, FloatArray
from inttower.core.spec import FeatureSpec
from inttower.publish.published import ServingEncoder

# One entry a field: sparse a text a row, multi and sequence a list of texts a row, dense float32
# [B] (or [B, width]).
Columns = Mapping[str, Sequence[str] | Sequence[Sequence[str]] | FloatArray]
State = dict[str, npt.NDArray[np.generic] | bytes]
Labels = npt.NDArray[np.generic]
# Called now and then during the warm-up with the part that is done, 0 to 1
Progress = Callable[[float], None]


@runtime_checkable
class Model(Protocol):
    """What learns from batches of labelled rows."""

    @property
    def spec(self) -> FeatureSpec:
        """The fields that it reads."""

    def encode(self, columns: Columns, admit: bool) -> Batch:
        """Turn text to rows of the id tables.

        Args:
            columns: all fields of the spec; further ones are not read.
            admit: count what is seen and give new ids rows; else unknown ids share one row.

        Raises:
            SpecError: a field is missing, or of another length or type.
        """

    def predict(self, batch: Batch) -> FloatArray:
        """Logits, float32 [B]; changes nothing."""

    def learn(self, batch: Batch, labels: Labels, weights: FloatArray | None = None) -> float:
        """One step on labels 0/1 [B] with weights [B] (none: ones). The mean loss before it."""

    def predict_then_learn(
        self, batch: Batch, labels: Labels, weights: FloatArray | None = None
    ) -> tuple[FloatArray, float]:
        """Logits [B] as they were before the step, and what :meth:`learn` gives; in one pass."""

    def fit(
        self,
        batch: Batch,
        labels: Labels,
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Warm up: scale the dense fields, set the bias, then shuffled epochs.

        ``None`` takes what the model's training settings say.
        """

    def state(self) -> State:
        """Everything learnt, optimiser and id tables included, as copies."""

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for a model made with the same arguments."""


@runtime_checkable
class Decoupled(Model, Protocol):
    """A model with a user side and an item side, so that it can be published as vectors."""

    def serving_encoder(self) -> ServingEncoder:
        """The weights as they stand, as encoders that later steps do not change."""

    def user_id_rows(self, ids: Sequence[str]) -> FloatArray:
        """What has been learnt of these users, float32 [n, R]; the unknown row for unknown ids."""

    def item_id_rows(self, ids: Sequence[str]) -> FloatArray:
        """The same of items, float32 [n, D]."""

    def known_ids(self, side: str) -> list[str]:
        """The ids of ``"user"`` or ``"item"`` that have a row of their own, in row order."""
