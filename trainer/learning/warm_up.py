"""The warm-up: rows are collected as arrays, then all models are fitted on them."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.samples import Shown
from inttower.core.batch import Batch, FloatArray
from inttower.core.contract import Columns, Model, Progress
from settings.errors import ConfigurationError
from settings.trainer_settings import TrainerSettings
from trainer.learning.model_set import MODELS, Models
from trainer.learning.sample_inputs import FrozenFeatures, SampleInputs
from trainer.learning.state_rows import set_inputs

# rows encoded at a time while rows are collected: enough for whole-array work
_CHUNK = 8192


class WarmUp:
    """Rows of the warm-up.

    Args:
        settings: how it is fitted.
        models: to be fitted.
        inputs: makes the models' columns.
        frozen_features: takes in the features of the rows.
        threads: of the fit.

    Attributes:
        rows: how many were collected.
        positives: how many of them are positives by now.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        models: Models,
        inputs: SampleInputs,
        frozen_features: FrozenFeatures,
    ) -> None:
        self._settings = settings
        self._models = models
        self._inputs = inputs
        self._frozen_features = frozen_features
        self.rows = 0
        self.positives = 0
        self._collected: list[Shown] = []
        self._online: list[Batch] = []
        self._logistic: list[Batch] = []
        self._statics: list[Columns] = []
        self._labels = array("b")
        self._weights = array("f")
        self._at = array("q")
        self._known_at = array("q")

    def add(self, shown: Shown, label: int, weight: float, known_at: int) -> None:
        """Collect a row whose label became known at that time (ms)."""
        self._collected.append(shown)
        self._labels.append(label)
        self._weights.append(weight)
        self._at.append(shown.at)
        self._known_at.append(known_at)
        self.rows += 1
        self.positives += label
        if len(self._collected) >= _CHUNK:
            self._encode()

    def correct(self, number: int, label: int, weight: float, known_at: int) -> None:
        """Give another label to the row that was collected as this one (0, 1, …)."""
        self.positives += label - self._labels[number]
        self._labels[number], self._weights[number] = label, weight
        self._known_at[number] = known_at

    def empty(self) -> WarmUp:
        """One without rows."""
        return WarmUp(self._settings, self._models, self._inputs, self._frozen_features)

    def _encode(self) -> None:
        """Turn collected rows into arrays: a tenth of their size as objects."""
        rows, self._collected = self._collected, []
        if not rows:
            return
        columns = dict(self._inputs.live(rows))
        if self._models.user_state is not None:
            names = self._models.user_state.reads
            self._statics.append({name: columns[name] for name in names})
            columns |= self._models.user_state.blank_inputs(len(rows))
        self._online.append(self._models.online.encode(columns, admit=True))
        self._logistic.append(self._models.logistic.encode(columns, admit=True))
        self._frozen_features.update(rows)

    def fit(self, progress: Progress | None, kept: int) -> dict[str, NDArray[Any]] | None:
        """Fit all models on what was collected, then freeze copies of them.

        Args:
            progress: called with the part that is done, 0 to 1; an exception from it ends the fit.
            kept: rows from this one on (0, 1, …) are given back as encoded: they can still be
                corrected.

        Returns:
            What :meth:`trainer.learning.predictor.Predictor.predict` gives, with logits of 0;
            None: no rows.

        Raises:
            ConfigurationError: there are more ids than the tables may hold.
        """
        self._encode()
        models = self._models
        tail = None
        if self.rows:
            labels = np.array(self._labels, np.float32)
            weights = np.array(self._weights, np.float32)
            inputs = self._fit_state(labels)
            online = self._joined(models.online, self._online, inputs)
            logistic = self._joined(models.logistic, self._logistic, inputs)
            self._fit_model(models.online, online, labels, weights, progress)
            self._fit_model(models.logistic, logistic, labels, weights, progress)
            if kept < self.rows:
                tail = _tail(online, logistic, kept)
        models.freeze()
        return tail

    def _fit_state(self, labels: FloatArray) -> Mapping[str, FloatArray]:
        """Let the user state learn the rows in the order in which their labels became known."""
        state = self._models.user_state
        if state is None:
            return {}
        known_at = np.array(self._known_at, np.int64)
        order = np.argsort(known_at, kind="stable")
        columns = _side_by_side(self._statics)
        self._statics.clear()
        for start in range(0, len(order), _CHUNK):
            part = order[start : start + _CHUNK]
            some = {name: [column[k] for k in part] for name, column in columns.items()}
            at = np.array(self._at, np.int64)[part]
            state.collect(some, at, known_at[part], labels[part])
        back = np.argsort(order)
        found = state.fit(self._settings.threads)
        return {name: values[back] for name, values in found.items()}

    def _joined(
        self, model: Model, batches: list[Batch], inputs: Mapping[str, FloatArray]
    ) -> Batch:
        if len({b.generation for b in batches}) > 1:
            raise ConfigurationError(
                f"the warm-up has more ids than trainer.max_ids ({self._settings.max_ids}) allows:"
                " raise it or shorten the warm-up"
            )
        batch = Batch.concat(batches)
        batches.clear()  # hundreds of megabytes on a large log
        set_inputs(batch, model.spec, inputs)
        return batch

    def _fit_model(
        self,
        model: Model,
        batch: Batch,
        labels: FloatArray,
        weights: FloatArray,
        progress: Progress | None,
    ) -> None:
        model.fit(
            batch,
            labels,
            weights=weights,
            epochs=self._settings.warmup_epochs,
            batch_size=self._settings.warmup_batch,
            seed=self._settings.seed,
            progress=progress,
        )


def _tail(online: Batch, logistic: Batch, start: int) -> dict[str, NDArray[Any]]:
    count = len(online) - start
    return {
        "rows": online.rows[start:],
        "dense": online.dense[start:],
        "generation": np.full(count, online.generation, np.int64),
        "plain": logistic.dense[start:],
        "logits": np.zeros((count, len(MODELS)), np.float32),
        "user": np.zeros(count, np.uint64),
    }


def _side_by_side(parts: Sequence[Columns]) -> dict[str, Sequence[object] | NDArray[np.generic]]:
    """Columns of several parts behind one another; all of them are lists."""
    return {name: [value for part in parts for value in part[name]] for name in parts[0]}
