"""The state machine: every impression is predicted when it is shown and learnt after its wait.

    WARM-UP   rows are collected, encoded, in order; nothing is predicted
       │      warmup_until_ms has passed, or there are warmup_labels of both labels
       ▼
    fit       shuffled epochs over all of them; then the frozen copy is taken
       │
       ▼
    STREAM    shown            encoded and predicted by all models, with what was learnt by then;
                               from now on an open row
              action           decides the row's label; the user state learns it at once
              wait passed      the row joins the next batch, with the label known by then
              action after it  the row is learnt again with its right label, and with the wrong one
                               at negative weight (Ktena et al. 2019, arXiv 1907.06558)
              window passed    the prediction is recorded with the final label

It is one file, for its methods are the steps of one machine and share all of its state.

The clock is the time of the records and of nothing else, so equal records give equal bytes.

**Batches** are cut by count alone, between two moments or requests, so that each holds both labels
in their true proportion at any rate of traffic, and a step of Adam is never made of few rows. Rows
wait in the queue until there are enough of them. What a user sees at once does not wait: features,
the user state, and new ids.

**Predictions** depend on steps and not on the rows between them, so rows are predicted in chunks,
each before the next step.

Four sets of predictions are recorded, all on the same rows:

- ``online``: the model that goes on learning.
- ``frozen_weights``: its copy from the end of the warm-up, on live features.
- ``frozen``: the same copy, on the user's and item's features as they stood at that time.
- ``logistic_regression``: on the live features, learning as the online model does.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.declaration import Declaration
from features.samples import Action, Shown
from inttower.core.contract import Progress
from settings.settings import Settings
from trainer.arrived import Arrived
from trainer.learning.evaluation import Evaluation
from trainer.learning.latest_rows import LatestRows
from trainer.learning.learning_queue import LearningQueue
from trainer.learning.model_set import MODELS, Models
from trainer.learning.open_rows import OpenRow, OpenRows, key_of
from trainer.learning.outcome_feed import LONGEST_CHUNK_MS, OutcomeFeed
from trainer.learning.predictor import Predictor
from trainer.learning.sample_inputs import FrozenFeatures, SampleInputs
from trainer.learning.touched import Touched
from trainer.learning.warm_up import WarmUp

log = logging.getLogger(__name__)

# rows predicted at a time at most
_CHUNK = 512

Parts = dict[str, dict[str, NDArray[Any] | bytes]]
# partition, offset, bytes
SavedRecord = tuple[int, int, bytes]
Decode = Callable[[SavedRecord], Arrived]


class LearnerCounters(msgspec.Struct):
    """The small numbers that a checkpoint keeps.

    Attributes:
        learnt: rows taken for learning, the warm-up's among them; corrections are not counted.
        batches: steps of the stream.
        loss: of the newest step.
        newest_at: when the newest row that was taken for learning was shown, ms.
        warmup_samples: rows of the warm-up.
        corrected: rows that were given another label after they had been learnt.
        late_labels: of these, those whose prediction had been recorded.
        unmatched: actions whose row was not open any more.
        cut_short: rows dropped before their window had passed, for there were too many.
        clock: time of the newest record processed, ms.
    """

    learnt: int = 0
    batches: int = 0
    loss: float | None = None
    newest_at: int = 0
    warmup_samples: int = 0
    corrected: int = 0
    late_labels: int = 0
    unmatched: int = 0
    cut_short: int = 0
    clock: int = -1


class OnlineLearner:
    """Learns records in the order in which :meth:`add` is given them.

    Args:
        settings: warm-up, batches, evaluation; wait and attribution window of the log.
        declaration: of the log's features.
        models: new ones, of equal seeds in every process.
        inputs: makes the models' columns of samples, but for those of a user state.
        progress: called with the part of the warm-up's fit that is done, 0 to 1; an exception
            from it ends the fit.

    Attributes:
        warm: the warm-up is over.
        counters: how much was learnt.
        rows: the open ones.
        evaluation: predictions that were made when their rows were shown.
        frozen_features: raw features of users and items at the end of the warm-up.
        items: each item's newest raw features.
        touched: users and items that have changed since the last delta.
        fit_seconds: wall time of the fit, if this process did it.
    """

    def __init__(
        self,
        settings: Settings,
        declaration: Declaration,
        models: Models,
        inputs: SampleInputs,
        progress: Progress | None = None,
    ) -> None:
        self._settings = settings.trainer
        self._wait_ms = settings.log.waits_ms
        # an action counts a millisecond after it was known
        self._close_ms = settings.log.attribution_ms + 1
        self._keep_ms = self._close_ms + self._settings.late_labels_ms
        self.models = models
        self._progress = progress
        trainer = settings.trainer
        self.evaluation = Evaluation(MODELS, trainer.evaluation_rows, trainer.evaluation_window)
        self.frozen_features = FrozenFeatures(declaration, trainer.max_ids)
        self.items = LatestRows(declaration, "item", trainer.max_ids)
        self.touched = Touched()
        self.rows = OpenRows()
        self.counters = LearnerCounters()
        self._predictor = Predictor(models, inputs, self.frozen_features)
        self._outcomes = OutcomeFeed(models.user_state, inputs, self.touched)
        self._warm_up = WarmUp(trainer, models, inputs, self.frozen_features)
        # rows that were shown and not encoded yet
        self._fresh: deque[tuple[OpenRow, Arrived]] = deque()
        # rows whose window has passed and whose prediction is not recorded yet
        self._closed: list[OpenRow] = []
        self._queue = LearningQueue(models, self.rows, self.touched, trainer.batch_samples)
        self.warm = False
        self.fit_seconds = 0.0

    @property
    def queued(self) -> int:
        """Rows and corrections that wait until a batch is full."""
        return len(self._queue)

    # ------------------------------------------------------------------ the sequence

    def add(self, arrived: Arrived) -> None:
        """Process the next record of the order."""
        message = arrived.message
        # one that came behind the watermark is taken as if it came now
        at = max(message.at, self.counters.clock)
        if isinstance(message, Shown):
            self._move_to(at)
            self._show(arrived, message, at)
        else:
            # an action counts before all that is due at its time
            self._move_to(at - 1)
            self._act(message, at)

    def advance(self, watermark: int) -> None:
        """Do what is due without a further record; all up to ``watermark`` (ms) must be added."""
        self._move_to(watermark)
        self._outcomes.settle()

    def _show(self, arrived: Arrived, shown: Shown, at: int) -> None:
        row = OpenRow(
            self.rows.count,
            at,
            key_of(shown.impression_at),
            shown.request_id,
            shown.user_id,
            shown.item_id,
            predicted=self.warm,
        )
        self.rows.open(row)
        self._fresh.append((row, arrived))
        if self.warm:
            self._note_item(shown, at)
            if len(self._fresh) >= _CHUNK:
                self._predict()
        while len(self.rows) > self._settings.max_open_rows:
            self._drop_early()

    def _note_item(self, shown: Shown, at: int) -> None:
        self.items.update([shown.item_id], [at], [shown.features])
        self.touched.items[shown.item_id] = at

    def _act(self, action: Action, at: int) -> None:
        row = self.rows.find(key_of(action.impression_at))
        if row is None:
            self.counters.unmatched += 1
            return
        before = row.label
        if not row.decide(action.label, action.weight):
            return
        row.known_at = at
        if not self.warm:
            if row.number < self._warm_up.rows:
                self._warm_up.correct(row.number, row.label, row.weight, at)
            return
        self._outcomes.add(row, at)
        if row.learnt >= 0:
            self.counters.corrected += 1
            self._queue.correct(row)
            if self._queue.is_full:
                self._step()
        if row.recorded >= 0 and row.label != before:
            self.counters.late_labels += 1
            self.evaluation.relabel(row.recorded, row.label)

    # ------------------------------------------------------------------ what is due

    def _move_to(self, now: int) -> None:
        """Do all that is due up to this time (ms)."""
        until = self._settings.warmup_until_ms
        if not self.warm and until is not None and now >= until:
            self._do_due(until - 1)
            self._fit()
        self._do_due(now)

    def _do_due(self, now: int) -> None:
        rows = self.rows
        while (row := rows.next_to_learn()) is not None and row.at + self._wait_ms <= now:
            self._take_moment(row.at)
        while (row := rows.next_to_close()) is not None and row.at + self._close_ms <= now:
            self._close_moment(row.at)
        self._set_clock(now)
        while (row := rows.oldest()) is not None and row.at + self._keep_ms <= now and row.is_done:
            rows.drop()

    def _set_clock(self, now: int) -> None:
        self.counters.clock = max(now, self.counters.clock)
        # the user state remembers for so long what it was
        if self.warm and self._fresh and now - self._fresh[0][0].at > LONGEST_CHUNK_MS:
            self._predict()

    def _take_moment(self, at: int) -> None:
        """Take all rows that were shown at this time for learning."""
        self._set_clock(at + self._wait_ms)
        request: str | None = None
        while (row := self.rows.next_to_learn()) is not None and row.at == at:
            if self._queue.is_full and row.request_id != request:
                self._step()
            request = row.request_id
            self._take(self.rows.take_to_learn(), at + self._wait_ms)
        if self._queue.is_full:
            self._step()
        elif self._has_warmed_up():
            self._fit()

    def _take(self, row: OpenRow, due: int) -> None:
        self.counters.newest_at = row.at
        if not self.warm:
            shown = self._fresh.popleft()[1].message
            assert isinstance(shown, Shown)  # noqa: S101 - only these are put there
            known_at = min(due, row.known_at) if row.known_at >= 0 else due
            self._warm_up.add(shown, row.label, row.weight, known_at)
            return
        self.counters.learnt += 1
        self._outcomes.add(row, due)
        self._queue.add(row)
        # all rows that are shown are predicted before, so none of a moment cut in two leaks
        if self._queue.is_overfull:
            self._step()

    def _close_moment(self, at: int) -> None:
        """Record the predictions of all rows that were shown at this time, with their labels."""
        while (row := self.rows.next_to_close()) is not None and row.at == at:
            self._close()
        self._record()

    def _close(self) -> None:
        row = self.rows.close()
        if row.predicted:
            self._closed.append(row)

    def _record(self) -> None:
        """Record the closed rows; those that are not predicted yet stay open."""
        if not self._closed or (
            self._fresh and self._closed[-1].number >= self._fresh[0][0].number
        ):
            return
        rows, self._closed = self._closed, []
        numbers = np.array([row.number for row in rows], np.int64)
        labels = np.array([row.label for row in rows], np.uint8)
        for place, row in enumerate(rows, self.evaluation.recorded):
            row.recorded = place
        self.evaluation.record(
            self.rows.read("logits", numbers), labels, self.rows.read("user", numbers)
        )

    def _drop_early(self) -> None:
        """Drop the oldest row, learnt and recorded as it is by now."""
        row = self.rows.oldest()
        if row is None:
            return
        if row is self.rows.next_to_learn():
            self._take(self.rows.take_to_learn(), self.counters.clock)
        if row is self.rows.next_to_close():
            self.counters.cut_short += 1
            self._close()
        if row.queued:
            self._step()
        self._record()
        self.rows.drop()

    # ------------------------------------------------------------------ models

    def _predict(self) -> None:
        """Encode and predict all rows that were shown since the last time."""
        if not self._fresh:
            return
        self._outcomes.settle()
        fresh, self._fresh = self._fresh, deque()
        shown = [a.message for _, a in fresh if isinstance(a.message, Shown)]
        self.rows.write([row.number for row, _ in fresh], self._predictor.predict(shown))
        self._record()

    def _step(self) -> None:
        self._predict()
        self.counters.loss = self._queue.step(self.counters.clock)
        self.counters.batches += 1

    def _has_warmed_up(self) -> bool:
        """Whether there are enough rows of both labels, if no time ends the warm-up."""
        if self.warm or self._settings.warmup_until_ms is not None:
            return False
        rows, positives = self._warm_up.rows, self._warm_up.positives
        enough = min(positives, rows - positives) >= self._settings.warmup_labels
        return enough or rows >= self._settings.warmup_most_samples

    def _fit(self) -> None:
        started = time.monotonic()
        done = self._warm_up
        log.info("warm-up: fitting %d samples, %d of them positive", done.rows, done.positives)
        oldest = self.rows.oldest()
        first = done.rows if oldest is None else min(oldest.number, done.rows)
        kept = done.fit(self._progress, first)
        self._warm_up = done.empty()
        if kept is not None:
            self.rows.write(range(first, done.rows), kept)
        for row in self.rows:
            if row.number < done.rows:
                row.state_label, row.learnt, row.learnt_weight = row.label, row.label, row.weight
            elif row.known_at >= 0:
                self._outcomes.add(row, self.counters.clock)
        self.items.load_state(self.frozen_features.items.state())
        for row, arrived in self._fresh:
            if isinstance(arrived.message, Shown):
                self._note_item(arrived.message, row.at)
        self.warm = True
        self.counters.learnt = self.counters.warmup_samples = done.rows
        self.fit_seconds = time.monotonic() - started
        log.info("warm-up: done in %.1f s", self.fit_seconds)

    def id_counts(self) -> dict[str, int]:
        """Users and items that have a row of their own."""
        online = self.models.online
        return {side: len(online.known_ids(side)) for side in ("user", "item")}

    @property
    def waiting(self) -> int:
        """Rows shown and not taken for learning yet, or only collected for the warm-up."""
        return self.rows.unlearnt + self._warm_up.rows

    # ------------------------------------------------------------------ the checkpoint

    def parts(self) -> Parts:
        """All that was learnt and all that is open, for the checkpoint; after the warm-up only."""
        self._outcomes.settle()
        parts: Parts = {name: dict(m.state()) for name, m in self.models.learnt().items()}
        parts["evaluation"] = dict(self.evaluation.state())
        parts["frozen_features"] = dict(self.frozen_features.state())
        parts["items"] = {"rows": self.items.state()}
        parts["counters"] = {"counters": msgspec.json.encode(self.counters)}
        parts["open_rows"] = self.rows.state()
        fresh = [(a.partition, a.offset, a.value) for _, a in self._fresh]
        parts["queues"] = {
            "queue": self._queue.state(),
            "fresh": msgspec.msgpack.encode(fresh),
        }
        return parts

    def restore(self, parts: Mapping[str, Mapping[str, Any]], decode: Decode) -> None:
        """The inverse of :meth:`parts`.

        Args:
            parts: as they were saved.
            decode: gives back a record from partition, offset and bytes.
        """
        for name, model in self.models.learnt().items():
            model.load_state(parts[name])
        self.evaluation.load_state(parts["evaluation"])
        self.frozen_features.load_state(parts["frozen_features"])
        self.items.load_state(parts["items"]["rows"])
        self.counters = msgspec.json.decode(parts["counters"]["counters"], type=LearnerCounters)
        self._outcomes.clock = self.counters.clock
        self.rows.load_state(parts["open_rows"])
        self._queue.load_state(parts["queues"]["queue"])
        closed = list(self.rows)[: len(self.rows) - self.rows.unclosed]
        self._closed = [row for row in closed if row.predicted and row.recorded < 0]
        fresh = msgspec.msgpack.decode(parts["queues"]["fresh"], type=list[SavedRecord])
        newest = list(self.rows)[len(self.rows) - len(fresh) :]
        self._fresh = deque(zip(newest, map(decode, fresh), strict=True))
        self.warm = True
