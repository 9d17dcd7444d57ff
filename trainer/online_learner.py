"""The state machine: warm-up, then the stream, in which every batch is predicted before learnt.

    WARM-UP   samples are collected, encoded, in order; nothing is predicted
       │      warmup_until_ms has passed, or warmup_samples are there
       ▼
    fit       shuffled epochs over all of them; then the frozen copy is taken
       │
       ▼
    STREAM    a batch: encode → predict (all models) → learn (all that learn) → record

Four sets of predictions are recorded, all on the same samples:

- ``online``: the model that goes on learning.
- ``frozen_weights``: its copy from the end of the warm-up, on live features.
- ``frozen``: the same copy, on the user's and item's features as they stood at that time.
- ``logistic_regression``: on the live features, learning as the online model does.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.declaration import Declaration
from features.samples import Sample
from inttower.core.batch import Batch, FloatArray
from inttower.core.contract import Columns, Decoupled, Model, Progress
from inttower.state.user_state import UserState
from settings.errors import ConfigurationError
from settings.trainer_settings import TrainerSettings
from trainer.arrived import Arrived
from trainer.evaluation import Evaluation
from trainer.latest_rows import LatestRows
from trainer.ordering import Batcher
from trainer.sample_inputs import FrozenFeatures, SampleInputs
from trainer.state_rows import set_inputs

log = logging.getLogger(__name__)

MODELS = ("online", "frozen_weights", "frozen", "logistic_regression")
# rows encoded at a time while the warm-up collects: enough for whole-array work
_CHUNK = 8192

Parts = dict[str, dict[str, NDArray[Any] | bytes]]


@dataclass(frozen=True)
class Models:
    """The models of one learner.

    Attributes:
        online: learns, and is published.
        frozen: made as ``online``; takes its state at the end of the warm-up.
        logistic: learns on the same columns.
        user_state: beside the network, if any; its inputs are fields of the models' spec.
        frozen_user_state: made as ``user_state``; takes its state as ``frozen`` does.
    """

    online: Decoupled
    frozen: Decoupled
    logistic: Model
    user_state: UserState | None = None
    frozen_user_state: UserState | None = None

    def learnt(self) -> dict[str, Model | UserState]:
        """All that has state, by name."""
        parts: dict[str, Model | UserState] = {
            "online": self.online,
            "frozen": self.frozen,
            "logistic": self.logistic,
        }
        if self.user_state is not None and self.frozen_user_state is not None:
            parts["user_state"] = self.user_state
            parts["frozen_user_state"] = self.frozen_user_state
        return parts


class _Counters(msgspec.Struct):
    """The small numbers that a checkpoint keeps."""

    learnt: int = 0
    batches: int = 0
    loss: float | None = None
    last_closed_ts: int = 0
    warmup_samples: int = 0


@dataclass
class _WarmUp:
    """What was collected so far: objects of the newest chunk, arrays of those before."""

    rows: int = 0
    open: list[Sample] = field(default_factory=list)
    online: list[Batch] = field(default_factory=list)
    logistic: list[Batch] = field(default_factory=list)
    labels: list[FloatArray] = field(default_factory=list)


class OnlineLearner:
    """Learns samples in the order in which :meth:`add` is given them.

    Args:
        settings: warm-up, batches, evaluation.
        declaration: of the log's features.
        models: new ones, of equal seeds in every process.
        inputs: makes the models' columns of samples, but for those of a user state.
        progress: told how far the fit of the warm-up is, 0 to 1; what it raises ends the fit.

    Attributes:
        warm: the warm-up is over.
        counters: how much was learnt.
        evaluation: predictions that were made before learning.
        frozen_features: raw features of users and items at the end of the warm-up.
        items: each item's newest raw features.
        fit_seconds: wall time of the fit, if this process did it.
    """

    def __init__(
        self,
        settings: TrainerSettings,
        declaration: Declaration,
        models: Models,
        inputs: SampleInputs,
        progress: Progress | None = None,
    ) -> None:
        self._settings = settings
        self.models = models
        self._inputs = inputs
        self._progress = progress
        self.evaluation = Evaluation(MODELS, settings.evaluation_rows, settings.evaluation_window)
        self.frozen_features = FrozenFeatures(declaration, settings.max_ids)
        self.items = LatestRows(declaration, "item", settings.max_ids)
        self._batcher: Batcher[Arrived] = Batcher(
            settings.batch_samples, settings.batch_span_ms, settings.batch_span_from_ms
        )
        self._warmup = _WarmUp()
        self.warm = False
        self.counters = _Counters()
        self.fit_seconds = 0.0

    @property
    def open(self) -> list[Arrived]:
        """Samples of the batch that has not ended yet."""
        return self._batcher.open

    @property
    def waiting(self) -> int:
        """Samples taken and not learnt yet."""
        return self._warmup.rows + len(self._batcher.open)

    def add(self, arrived: Arrived) -> list[list[Sample]]:
        """Take the next sample of the order; gives the batches that were learnt by it."""
        if not self.warm:
            if self._belongs_to_warmup(arrived.sample):
                self._collect(arrived.sample)
                return []
            self._fit()
        return self._learn(list(self._batcher.add(arrived)))

    def advance(self, frontier: int) -> list[list[Sample]]:
        """Learn what needs no further sample, once all that closed up to ``frontier`` was added."""
        if not self.warm:
            until = self._settings.warmup_until_ms
            enough = self._warmup.rows >= self._settings.warmup_samples
            if enough if until is None else frontier >= until - 1:
                self._fit()
            return []
        return self._learn(list(self._batcher.close(frontier)))

    def _belongs_to_warmup(self, sample: Sample) -> bool:
        until = self._settings.warmup_until_ms
        if until is None:
            return self._warmup.rows < self._settings.warmup_samples
        return sample.closed_ts < until

    def _collect(self, sample: Sample) -> None:
        self._warmup.open.append(sample)
        self._warmup.rows += 1
        if len(self._warmup.open) >= _CHUNK:
            self._encode_collected()

    def _encode_collected(self) -> None:
        """Turn collected samples into arrays: a tenth of their size as objects."""
        samples, self._warmup.open = self._warmup.open, []
        if not samples:
            return
        columns = dict(self._inputs.live(samples))
        labels = _labels(samples)
        if self.models.user_state is not None:
            times = _times(samples)
            self.models.user_state.collect(columns, times.ts, times.closed_ts, labels)
            columns |= self.models.user_state.blank_inputs(len(samples))
        self._warmup.online.append(self.models.online.encode(columns, admit=True))
        self._warmup.logistic.append(self.models.logistic.encode(columns, admit=True))
        self._warmup.labels.append(labels)
        self.frozen_features.update(samples)
        self.counters.last_closed_ts = samples[-1].closed_ts

    def _fit(self) -> None:
        started = time.monotonic()
        self._encode_collected()
        done, self._warmup = self._warmup, _WarmUp()
        log.info("warm-up: fitting %d samples", done.rows)
        models = self.models
        if done.rows:
            inputs = (
                models.user_state.fit(self._settings.threads)
                if models.user_state is not None
                else {}
            )
            labels = np.concatenate(done.labels)
            self._fit_model(models.online, done.online, labels, inputs)
            self._fit_model(models.logistic, done.logistic, labels, inputs)
        models.frozen.load_state(models.online.state())
        if models.user_state is not None and models.frozen_user_state is not None:
            models.frozen_user_state.load_state(models.user_state.state())
        self.items.load_state(self.frozen_features.items.state())
        self.warm = True
        self.counters.learnt = self.counters.warmup_samples = done.rows
        self.fit_seconds = time.monotonic() - started
        log.info("warm-up: done in %.1f s", self.fit_seconds)

    def _fit_model(
        self,
        model: Model,
        batches: list[Batch],
        labels: FloatArray,
        inputs: Mapping[str, FloatArray],
    ) -> None:
        if len({b.generation for b in batches}) > 1:
            raise ConfigurationError(
                f"the warm-up has more ids than trainer.max_ids ({self._settings.max_ids}) allows:"
                " raise it or shorten the warm-up"
            )
        batch = Batch.concat(batches)
        batches.clear()  # hundreds of megabytes on a large log
        set_inputs(batch, model.spec, inputs)
        model.fit(
            batch,
            labels,
            epochs=self._settings.warmup_epochs,
            batch_size=self._settings.warmup_batch,
            seed=self._settings.seed,
            progress=self._progress,
        )

    def _learn(self, batches: list[list[Arrived]]) -> list[list[Sample]]:
        learnt = [[a.sample for a in batch] for batch in batches]
        for samples in learnt:
            self._step(samples)
        return learnt

    def _step(self, samples: list[Sample]) -> None:
        models = self.models
        live = dict(self._inputs.live(samples))
        then = dict(self._inputs.frozen(samples, self.frozen_features))
        labels = _labels(samples)
        if models.user_state is not None and models.frozen_user_state is not None:
            live |= _update_user_state(models.user_state, live, samples, labels)
            then |= models.frozen_user_state.user_inputs(then)
            then |= models.frozen_user_state.item_inputs(then)
        weights = np.array([s.weight for s in samples], np.float32)

        online = models.online.encode(live, admit=True)
        logistic = models.logistic.encode(live, admit=True)
        # one pass for both: a step of a sample or two costs as much as a pass
        frozen = models.frozen.predict(
            Batch.concat([models.frozen.encode(c, admit=False) for c in (live, then)])
        )
        predicted, self.counters.loss = models.online.predict_then_learn(online, labels, weights)
        counters_alone, _ = models.logistic.predict_then_learn(logistic, labels, weights)
        logits = {
            "online": predicted,
            "frozen_weights": frozen[: len(samples)],
            "frozen": frozen[len(samples) :],
            "logistic_regression": counters_alone,
        }
        self.evaluation.record(logits, labels.astype(np.uint8), [s.user_id for s in samples])
        self.items.update(
            [s.item_id for s in samples], [s.ts for s in samples], [s.features for s in samples]
        )
        self.counters.learnt += len(samples)
        self.counters.batches += 1
        self.counters.last_closed_ts = samples[-1].closed_ts

    def id_counts(self) -> dict[str, int]:
        """Users and items that have a row of their own."""
        online = self.models.online
        return {side: len(online.known_ids(side)) for side in ("user", "item")}

    def parts(self) -> Parts:
        """All that was learnt, for the checkpoint; but for :attr:`open`, and after warm-up only."""
        parts: Parts = {name: dict(m.state()) for name, m in self.models.learnt().items()}
        parts["evaluation"] = dict(self.evaluation.state())
        parts["frozen_features"] = dict(self.frozen_features.state())
        parts["items"] = {"rows": self.items.state()}
        parts["counters"] = {"counters": msgspec.json.encode(self.counters)}
        return parts

    def restore(self, parts: Mapping[str, Mapping[str, Any]], open_batch: list[Arrived]) -> None:
        """The inverse of :meth:`parts`, with the samples that :attr:`open` held."""
        for name, model in self.models.learnt().items():
            model.load_state(parts[name])
        self.evaluation.load_state(parts["evaluation"])
        self.frozen_features.load_state(parts["frozen_features"])
        self.items.load_state(parts["items"]["rows"])
        self.counters = msgspec.json.decode(parts["counters"]["counters"], type=_Counters)
        self._batcher.restore(open_batch)
        self.warm = True


def _update_user_state(
    state: UserState, columns: Columns, samples: Sequence[Sample], labels: FloatArray
) -> Mapping[str, FloatArray]:
    """Teach a state the outcomes of a batch; its inputs as of each impression."""
    times = _times(samples)
    # one that came behind the frontier that should have covered it is taken as if it closed now
    closed = np.maximum.accumulate(np.maximum(times.closed_ts, state.frontier or 0))
    state.learn(columns, closed, labels)
    return state.inputs(columns, times.ts)


class _Times(NamedTuple):
    """Of samples: impression and closing, ms, int64 [n]."""

    ts: NDArray[np.int64]
    closed_ts: NDArray[np.int64]


def _times(samples: Sequence[Sample]) -> _Times:
    return _Times(
        np.array([s.ts for s in samples], np.int64),
        np.array([s.closed_ts for s in samples], np.int64),
    )


def _labels(samples: Sequence[Sample]) -> FloatArray:
    return np.array([s.label for s in samples], np.float32)
