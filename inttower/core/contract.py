"""The contract of every model: predict a batch, then learn it.

    batch = model.encode(columns, admit=True)   # text to rows; new ids get a row
    logits = model.predict(batch)               # changes nothing: record it
    model.learn(batch, labels)                  # one step

``predict_then_learn`` does both in one forward pass. ``fit`` is the warm-up before a stream.
``state`` is everything that has been learnt, as plain arrays and bytes: two models with equal state
that learn the same batches end with equal bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from inttower.core.batch import Batch, FloatArray, IntArray, RowArray
from inttower.core.spec import FeatureSpec
from inttower.publish.published import ServingEncoder

# One entry a field. sparse: a text a row; multi and sequence: a list of texts a row; dense: float32
# [B] or [B, width].
Columns = Mapping[str, Sequence[str] | Sequence[Sequence[str]] | FloatArray]
State = dict[str, npt.NDArray[np.generic] | bytes]
Labels = npt.NDArray[np.generic]
# Called from time to time during the warm-up with the share that is done, 0 to 1
Progress = Callable[[float], None]


@runtime_checkable
class Model(Protocol):
    """A model that learns from batches of labelled rows."""

    @property
    def spec(self) -> FeatureSpec:
        """The fields that it reads."""

    def encode(self, columns: Columns, admit: bool) -> Batch:
        """Encode columns: look up ids in the id tables.

        Args:
            columns: all fields of the spec; others are ignored.
            admit: count sightings and give new ids a row; otherwise unknown ids share one row.

        Raises:
            SpecError: a field is missing, or of another length or type.
        """

    def renewed(self, rows: RowArray, dense: FloatArray, generations: IntArray) -> Batch:
        """Rows that were encoded earlier, as a batch that can be learnt now.

        Ids that have expired since then count as unknown.

        Args:
            rows: int32 [B, K], of batches.
            dense: float32 [B, n], of the same.
            generations: int64 [B], the generation of each row's batch.
        """

    def predict(self, batch: Batch) -> FloatArray:
        """Logits, float32 [B]; changes nothing."""

    def learn(self, batch: Batch, labels: Labels, weights: FloatArray | None = None) -> float:
        """One step on labels 0/1 [B] with weights [B] (default 1); the mean loss before it.

        The loss is Σ weight · loss / B. A weight may be negative: a row with the wrong label at −w
        together with the same row with the right one at w is the correction of an earlier step.
        """

    def predict_then_learn(
        self, batch: Batch, labels: Labels, weights: FloatArray | None = None
    ) -> tuple[FloatArray, float]:
        """Logits [B] from before the step, and the mean loss before it; in one pass."""

    def fit(
        self,
        batch: Batch,
        labels: Labels,
        *,
        weights: FloatArray | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Warm up: scale the dense fields, set the bias, then shuffled epochs.

        ``None`` takes the value of the model's training settings.
        """

    def state(self) -> State:
        """Everything learnt, with optimiser and id tables, as copies."""

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for a model made with the same arguments."""


@runtime_checkable
class Decoupled(Model, Protocol):
    """A model with a user side and an item side, so that it can be published as vectors."""

    def serving_encoder(self) -> ServingEncoder:
        """Encoders with a copy of the current weights; later steps do not change them."""

    def user_id_rows(self, ids: Sequence[str]) -> FloatArray:
        """The learnt rows of these users, float32 [n, R]; the unknown row for unknown ids."""

    def item_id_rows(self, ids: Sequence[str]) -> FloatArray:
        """The learnt rows of these items, float32 [n, R]."""

    def ids_of(self, batch: Batch, side: str) -> list[str]:
        """The ids of ``"user"`` or ``"item"`` whose rows a step on this batch changes."""

    def known_ids(self, side: str) -> list[str]:
        """The ids of ``"user"`` or ``"item"`` that have a row of their own, in row order."""
