"""Streams a log through the default model, in the trainer's order.

A row is predicted when it is shown, with nothing that became known later. It is learnt ``wait_ms``
after that, with the label that is known by then; a click that comes later still is a correction.
Counters count impressions and clicks when they become known. Calls hold whole moments, so no
request is ever split.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from bench.log_rows import LogRows, Rows, Times, warm_up_end, whole_moments
from bench.predict_then_learn import Outcome
from features.log_arrays import LogArrays
from inttower.base.base_filter import Actions
from inttower.core.batch import FloatArray
from inttower.core.learner import Learner
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import state_dots
from inttower.models.inttower import IntTower, IntTowerConfig
from inttower.models.stack_warm_up import WarmUpRows
from inttower.models.stacked import Stacked, StackedConfig

Say = Callable[[str, float], None]
# modes of an outcome: the default, the same with all weights as they stood, and its parts
DEFAULT = "online"
FROZEN = "frozen weights"
RATES = "item and user counters"
BASE = "base"
STACK = "base and user state"
WHOLE = "with all of the network"
STACKED_MODES = (DEFAULT, FROZEN, RATES, BASE, STACK, WHOLE)

# rows of a call; a learning step of the network takes as many at least
_STEP = 128
_MOST_WAIT_MS = 60_000
_KNOWN_AFTER_MS = 1


def residual_network(spec: FeatureSpec, seed: int) -> Learner:
    """IntTower+ as it stands in the stack."""
    training = Training()
    dots = state_dots(spec)
    if dots:
        training = training.beside_user_state()
    return IntTower(spec, IntTowerConfig.plus(dots), training=training, seed=seed)


def click_times(log: LogArrays) -> Times:
    """When the click of each impression came [n]; of those without one, their own time."""
    shown, clicks = log.impressions, log.clicks
    clicked = np.flatnonzero(log.labels)
    # of one user and item, the first click belongs to the first clicked impression, and so on
    rows = clicked[np.lexsort((shown.ts[clicked], shown.items[clicked], shown.users[clicked]))]
    order = np.lexsort((clicks.ts, clicks.items, clicks.users))
    out = shown.ts.copy()
    out[rows] = np.maximum(clicks.ts[order], shown.ts[rows])
    return out


@dataclass(frozen=True, slots=True)
class StackedProtocol:
    """How the default model is put to the test.

    Args:
        warm_up: share of the rows that the warm-up learns; or
        until: the first row of the stream (for windows; none: by ``warm_up``).
        stop: one past its last row; none: all.
        wait_ms: from a row's impression to its learning; none: the log's longest time from an
            impression to its click, at most a minute.
        config: of the parts.
        network: whether there is one.
    """

    warm_up: float = 0.8
    until: int | None = None
    stop: int | None = None
    wait_ms: int | None = None
    config: StackedConfig = field(default_factory=StackedConfig)
    network: bool = True


class StackedStream:
    """One run.

    Args:
        data: the rows.
        protocol: how.
        seed: of the network.
        say: called with what is done, and the share of it that is.

    Attributes:
        model: the default model; of the last row when the run is over.
    """

    def __init__(self, data: LogRows, protocol: StackedProtocol, seed: int, say: Say) -> None:
        self._data = data
        self._protocol = protocol
        self._say = say
        self._seed = seed
        self._ts = data.ts
        self._clicks = click_times(data.log) + _KNOWN_AFTER_MS
        self._labels = data.log.labels
        clicked = np.flatnonzero(self._labels)
        self._click_order = clicked[np.argsort(self._clicks[clicked], kind="stable")]
        self._click_order_ts = self._clicks[self._click_order]
        delays = self._clicks - self._ts
        self._wait = protocol.wait_ms or min(int(delays.max()), _MOST_WAIT_MS)
        self.model = self._new()

    def _new(self) -> Stacked:
        def make(spec: FeatureSpec) -> Learner:
            return residual_network(spec, self._seed)

        network = make if self._protocol.network else None
        return Stacked(self._data.spec, network, self._protocol.config, seed=self._seed)

    def run(self) -> Outcome:
        """Warm up, then predict and learn the rest."""
        protocol, data = self._protocol, self._data
        start = protocol.until or warm_up_end(data.log, protocol.warm_up)
        stop = protocol.stop or len(data)
        known = int(self._ts[start]) - 1
        warm = WarmUpRows(
            lambda part: data.columns(np.arange(part.start, part.stop)),
            self._ts[:start],
            # a click that comes later is not known yet
            self._labels[:start] * (self._clicks[:start] <= known).astype(np.uint8),
            np.ones(start, np.float32),
            self._clicks[:start],
        )
        self.model.fit(warm, self._say)
        frozen = self._new()
        frozen.load_state(self.model.state())
        found: dict[str, list[FloatArray]] = {mode: [] for mode in STACKED_MODES}
        queue = _Waiting(self._ts, self._clicks, self._labels, self._wait)
        for part in whole_moments(self._ts, start, stop, _STEP):
            self._say("stream", (part.start - start) / (stop - start))
            rows = np.arange(part.start, part.stop)
            queue.learn(self.model, int(self._ts[part.start]))
            columns = data.columns(rows)
            until = int(self._ts[part.stop - 1])
            actions = self._actions(known, until)
            numbers, logits = self.model.shown(columns, self._ts[rows], actions)
            still, frozen_logits = frozen.shown(columns, self._ts[rows], actions)
            frozen.close(still)
            parts = self.model.parts(numbers).astype(np.float32)
            rates = self.model.base.rates(numbers)
            for mode, z in zip(
                STACKED_MODES,
                (logits, frozen_logits, rates, parts[:, 0], parts[:, 1], parts[:, 1] + parts[:, 2]),
                strict=True,
            ):
                found[mode].append(z)
            queue.add(rows, numbers)
            known = until
        return Outcome(
            np.arange(start, stop), {mode: np.concatenate(z) for mode, z in found.items()}
        )

    def _actions(self, after: int, until: int) -> Actions:
        """Clicks that became known in (after, until]."""
        first, last = np.searchsorted(self._click_order_ts, [after, until], "right")
        rows = self._click_order[first:last]
        return Actions(self._data.columns(rows), self._clicks[rows])


class _Waiting:
    """Rows that were shown and are not learnt yet, and those whose click may still come."""

    def __init__(self, ts: Times, clicks: Times, labels: NDArray[np.uint8], wait_ms: int) -> None:
        self._ts, self._clicks, self._labels, self._wait = ts, clicks, labels, wait_ms
        self._rows: list[tuple[Rows, Rows]] = []
        self._late: list[tuple[int, int]] = []  # row, number

    def add(self, rows: Rows, numbers: Rows) -> None:
        """Rows of one call, in order."""
        self._rows.append((rows, numbers))

    def learn(self, model: Stacked, now: int) -> None:
        """Let the model learn what has become due by ``now``."""
        while self._rows and self._ts[self._rows[0][0][-1]] + self._wait <= now:
            rows, numbers = self._rows.pop(0)
            late = (self._labels[rows] > 0) & (self._clicks[rows] > self._ts[rows] + self._wait)
            labels = np.where(late, 0, self._labels[rows])
            model.learn(numbers, labels, None, now)
            model.close(numbers[~late])
            self._late += zip(rows[late].tolist(), numbers[late].tolist(), strict=True)
        due = [one for one in self._late if self._clicks[one[0]] <= now]
        if due:
            self._late = [one for one in self._late if self._clicks[one[0]] > now]
            numbers = np.array([number for _, number in due])
            model.correct(numbers)
            model.close(numbers)
