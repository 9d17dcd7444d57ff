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

from bench.log_rows import LogRows, Rows, Times, warm_up_end, whole_moments
from bench.predict_then_learn import Outcome
from features.log_arrays import Decisions, LogArrays
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
    """IntTower+ as it is set up in the stack."""
    training = Training()
    dots = state_dots(spec)
    if dots:
        training = training.beside_user_state()
    return IntTower(spec, IntTowerConfig.plus(dots), training=training, seed=seed)


def click_times(log: LogArrays) -> Times:
    """When the first click of each impression came [n]; of those without one, their own time."""
    out = log.impressions.ts.copy()
    latest_first = np.argsort(-log.clicks.ts, kind="stable")
    out[log.click_rows[latest_first]] = log.clicks.ts[latest_first]
    return out


@dataclass(frozen=True, slots=True)
class StackedProtocol:
    """How the default model is put to the test.

    Args:
        warm_up: share of the rows that the warm-up learns; or
        until: the first row of the stream (for windows; none: by ``warm_up``).
        stop: one past its last row; none: all.
        wait_ms: from a row's impression to its learning; none: that of the log's TOML, or else the
            log's longest time from an impression to an action, at most a minute.
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
        log = data.log
        order = np.lexsort((log.click_rows, log.clicks.ts))
        self._click_order = log.click_rows[order]
        self._click_order_ts = log.clicks.ts[order] + _KNOWN_AFTER_MS
        delays = log.decisions.ts - self._ts[log.decisions.rows] + _KNOWN_AFTER_MS
        longest = int(delays.max(initial=_KNOWN_AFTER_MS))
        self._wait = protocol.wait_ms or log.wait_ms or min(longest, _MOST_WAIT_MS)
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
        # an action that comes later is not known yet
        labels, weights = data.log.decisions.as_of(len(data), known - _KNOWN_AFTER_MS)
        warm = WarmUpRows(
            lambda part: data.columns(np.arange(part.start, part.stop)),
            self._ts[:start],
            labels[:start],
            weights[:start],
            click_times(data.log)[:start] + _KNOWN_AFTER_MS,
        )
        self.model.fit(warm, self._say)
        frozen = self._new()
        frozen.load_state(self.model.state())
        found: dict[str, list[FloatArray]] = {mode: [] for mode in STACKED_MODES}
        queue = _Waiting(self._ts, data.log.decisions, self._wait)
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
        return Actions(self._data.columns(rows), self._click_order_ts[first:last])


@dataclass(frozen=True, slots=True)
class _Late:
    """A label that becomes known after its row is learnt."""

    at: int
    label: int
    weight: float
    number: int
    is_last: bool


class _Waiting:
    """Rows that were shown and are not learnt yet, and those whose label may still change."""

    def __init__(self, ts: Times, decisions: Decisions, wait_ms: int) -> None:
        self._ts, self._wait = ts, wait_ms
        self._decisions: dict[int, list[tuple[int, int, float]]] = {}
        at = decisions.ts + _KNOWN_AFTER_MS
        for row, *decided in zip(
            decisions.rows.tolist(),
            at.tolist(),
            decisions.labels.tolist(),
            decisions.weights.tolist(),
            strict=True,
        ):
            self._decisions.setdefault(row, []).append((decided[0], decided[1], decided[2]))
        self._rows: list[tuple[Rows, Rows]] = []
        self._late: list[_Late] = []
        self._learnt: dict[int, tuple[int, float]] = {}  # of rows whose label may still change

    def add(self, rows: Rows, numbers: Rows) -> None:
        """Rows of one call, in order."""
        self._rows.append((rows, numbers))

    def learn(self, model: Stacked, now: int) -> None:
        """Let the model learn what has become due by ``now``."""
        while self._rows and self._ts[self._rows[0][0][-1]] + self._wait <= now:
            rows, numbers = self._rows.pop(0)
            labels, weights = np.zeros(len(rows), np.uint8), np.ones(len(rows), np.float32)
            open_ = np.zeros(len(rows), np.bool_)
            for place, (row, number) in enumerate(
                zip(rows.tolist(), numbers.tolist(), strict=True)
            ):
                decided = self._decisions.get(row, [])
                due = int(self._ts[row]) + self._wait
                for at, label, weight in decided:
                    if at <= due:
                        labels[place], weights[place] = label, weight
                    else:
                        is_last = at == decided[-1][0]
                        self._late.append(_Late(at, label, weight, number, is_last))
                        open_[place] = True
                if open_[place]:
                    self._learnt[number] = (int(labels[place]), float(weights[place]))
            model.learn(numbers, labels, weights, now)
            model.close(numbers[~open_])
        due_now = [one for one in self._late if one.at <= now]
        if due_now:
            self._late = [one for one in self._late if one.at > now]
            self._correct(model, due_now)

    def _correct(self, model: Stacked, changes: list[_Late]) -> None:
        learnt = []
        for one in changes:
            learnt.append(self._learnt[one.number])
            self._learnt[one.number] = (one.label, one.weight)
        model.correct(
            np.array([one.number for one in changes]),
            np.array([one.weight for one in changes], np.float32),
            np.array([one.label for one in changes], np.uint8),
            (
                np.array([label for label, _ in learnt], np.uint8),
                np.array([weight for _, weight in learnt], np.float32),
            ),
        )
        done = [one.number for one in changes if one.is_last]
        for number in done:
            self._learnt.pop(number, None)
        model.close(np.array(done, np.int64))
