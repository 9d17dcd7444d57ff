"""The warm-up of a stacked model: its rows, and the choices made on its last tenth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from inttower.base.counter_inputs import Events
from inttower.base.input_kernels import ACTION_EVENT, SHOWN_EVENT
from inttower.base.input_plan import InputPlan
from inttower.base.mixing import gate
from inttower.core.batch import Batch, FloatArray, IntArray
from inttower.core.contract import Columns
from inttower.core.learner import Learner
from inttower.core.spec import FeatureSpec
from inttower.models.dots import ITEM_BIAS, ITEM_FACTORS, USER_STATE
from inttower.state.user_state import UserState, UserStateConfig

Doubles = npt.NDArray[np.float64]
Say = Callable[[str, float], None]

TAIL = 0.1
# rows that shapes of the user state are compared on, and fewest clicks to compare by
_COMPARED = 200_000
_FEWEST = 20
_CHUNK = 4096
_BATCH = 128


@dataclass(frozen=True, eq=False)
class WarmUpRows:
    """Impressions whose labels are known, in order of time.

    Attributes:
        columns: all fields of some of the rows.
        ts: int64 [n], ms.
        labels: uint8 [n], 0 or 1.
        weights: float32 [n].
        acted_ts: int64 [n], when a positive's action became known; of others anything.
    """

    columns: Callable[[slice], Columns]
    ts: IntArray
    labels: npt.NDArray[np.uint8]
    weights: FloatArray
    acted_ts: IntArray

    def __len__(self) -> int:
        return len(self.ts)

    def chunks(self, start: int, stop: int) -> Iterator[tuple[slice, Columns]]:
        """Rows from ``start`` to ``stop`` in parts, none of which parts a moment."""
        while start < stop:
            end = min(start + _CHUNK, stop)
            while end < stop and self.ts[end] == self.ts[end - 1]:
                end += 1
            yield slice(start, end), self.columns(slice(start, end))
            start = end

    def events(self, plan: InputPlan) -> tuple[Events, npt.NDArray[np.uint8], FloatArray]:
        """Impressions and actions in order, with the rows' labels and weights, [E] each."""
        n = len(self)
        keys = np.empty((n, plan.columns), np.int64)
        numbers = np.empty((n, len(plan.numbers)), np.float32)
        for part, columns in self.chunks(0, n):
            keys[part] = plan.keys(columns)
            numbers[part] = plan.number_matrix(columns, part.stop - part.start)
        clicked = np.flatnonzero(self.labels)
        row = np.concatenate([np.arange(n), clicked])
        what = np.repeat([SHOWN_EVENT, ACTION_EVENT], [n, len(clicked)]).astype(np.int32)
        ts = np.concatenate([self.ts, self.acted_ts[clicked]])
        # actions first within a moment
        order = np.lexsort((row, -what, ts))
        row = row[order]
        events = Events(what[order], ts[order], keys[row], numbers[row])
        return events, self.labels[row], self.weights[row]

    def tail(self) -> int:
        """The first row of the last tenth; never inside a moment."""
        at = self.ts[min(int(len(self) * (1 - TAIL)), len(self) - 1)]
        return int(np.searchsorted(self.ts, at))


@dataclass(frozen=True, slots=True)
class StateChoice:
    """A shape of the user state (None: it takes no part), and weights of base and state."""

    config: UserStateConfig | None
    weights: tuple[float, float]


def state_logits(inputs: Mapping[str, FloatArray]) -> Doubles:
    """What a user state predicts by itself, [n], from its inputs: b + m·v, mean over speeds."""
    v = inputs[ITEM_FACTORS].astype(np.float64)
    said = [(inputs[name] * v).sum(1) for name in inputs if name.startswith(USER_STATE)]
    return np.asarray(np.mean(said, axis=0) + inputs[ITEM_BIAS].reshape(len(v)))


def fitted_state(
    spec: FeatureSpec, config: UserStateConfig, rows: WarmUpRows
) -> tuple[UserState, dict[str, FloatArray]]:
    """A user state of all rows, and their inputs from factors that never saw their users."""
    state = UserState(spec, config)
    for part, columns in rows.chunks(0, len(rows)):
        state.collect(columns, rows.ts[part], rows.ts[part] + 1, rows.labels[part])
    return state, state.fit()


def mean_loss(z: Doubles, labels: npt.NDArray[np.uint8], weights: FloatArray) -> float:
    """Weighted mean log loss of logits."""
    y = labels.astype(np.float64)
    return float(np.average(np.logaddexp(0, z) - y * z, weights=weights))


class StateSelection:
    """The shape of the user state that helps on a log, if any does.

    Args:
        spec: the log's fields.
        states: shapes of the user state to choose from.
        say: called with what is being done, and the part of it that is done.
    """

    def __init__(self, spec: FeatureSpec, states: Sequence[UserStateConfig], say: Say) -> None:
        self._spec = spec
        self._states = states
        self._say = say

    def choose(self, rows: WarmUpRows, base: Doubles) -> StateChoice:
        """Which shape, if any; ``base``: logits [n] of the base."""
        cut = rows.tail()
        labels = rows.labels[cut:]
        none = StateChoice(None, (1.0, 0.0))
        if min(labels.sum(), len(labels) - labels.sum()) < _FEWEST or not cut:
            return none
        start = max(0, cut - _COMPARED)
        found = []
        for at, config in enumerate(self._states):
            self._say("shape of the user state", at / len(self._states))
            z = self._tail_logits(replace(config, folds=1), rows, start, cut)
            found.append((mean_loss(z, labels, rows.weights[cut:]), at, z))
        if not found:
            return none
        _, best, z = min(found, key=lambda one: one[:2])
        weights = gate(base[cut:], z, labels.astype(np.float64))
        return none if weights[1] == 0 else StateChoice(self._states[best], weights)

    def _tail_logits(
        self, config: UserStateConfig, rows: WarmUpRows, start: int, cut: int
    ) -> Doubles:
        state = UserState(self._spec, config)
        for part, columns in rows.chunks(start, cut):
            state.collect(columns, rows.ts[part], rows.ts[part] + 1, rows.labels[part])
        state.fit()
        found = []
        for part, columns in rows.chunks(cut, len(rows)):
            # inputs are as of each row's own time: its outcome and later ones are not in them
            state.learn(columns, rows.ts[part] + 1, rows.labels[part])
            found.append(state_logits(state.inputs(columns, rows.ts[part])))
        return np.concatenate(found)


class ResidualFit:
    """A network on its way through a warm-up.

    Args:
        network: new.
        rows: all.
        stack: logits [n] that it is added to.
        inputs: further columns, [n] each.

    Attributes:
        network: ready for the stream after :meth:`train`.
        tail: its logits of the tail's rows, each from before it learnt them.
        epochs: of which the last was best; 0: none was better than nothing.
        rate: of Adam in the stream.
    """

    def __init__(
        self,
        network: Learner,
        rows: WarmUpRows,
        stack: Doubles,
        inputs: Mapping[str, FloatArray],
    ) -> None:
        self.network = network
        self.tail = np.zeros(0, np.float32)
        self.epochs, self.rate = 0, network.training.lr_stream
        self._rows = rows
        self._stack = stack.astype(np.float32)
        self._inputs = inputs
        self._cut = rows.tail()

    def train(
        self,
        seed: int,
        epochs: int,
        rates: Sequence[float],
        progress: Callable[[float], None],
    ) -> None:
        """Choose epochs (at most so many) and rate, and go through the tail with them."""
        rows, network, cut = self._rows, self.network, self._cut
        batch = Batch.concat([network.encode(c, admit=True) for _, c in self._columns(0, cut)])
        tail = Batch.concat(
            [network.encode(c, admit=False) for _, c in self._columns(cut, len(rows))]
        )
        stack_logits = self._stack[:cut]
        network.fit(batch, rows.labels[:cut], epochs=0, offset=stack_logits)
        best, least = network.state(), self._loss(np.zeros(len(rows) - cut))
        done = 0

        def look() -> None:
            nonlocal best, least, done
            done += 1
            loss = self._loss(network.predict(tail))
            if loss < least:
                best, least, self.epochs = network.state(), loss, done

        network.fit(
            batch,
            rows.labels[:cut],
            epochs=epochs,
            seed=seed,
            progress=progress,
            offset=stack_logits,
            after_epoch=look,
        )
        del batch
        passed = []
        for rate in rates:
            network.load_state(best)
            network.set_rate(rate)
            z = self._stream()
            passed.append((self._loss(z), rate, z, network.state()))
        _, self.rate, self.tail, state = min(passed, key=lambda one: one[0])
        network.load_state(state)
        network.set_rate(self.rate)

    def _columns(self, start: int, stop: int) -> Iterator[tuple[slice, Columns]]:
        for part, columns in self._rows.chunks(start, stop):
            yield part, {**columns, **{k: v[part] for k, v in self._inputs.items()}}

    def _loss(self, z: Doubles | FloatArray) -> float:
        cut, rows = self._cut, self._rows
        return mean_loss(
            self._stack[cut:] + z.astype(np.float64), rows.labels[cut:], rows.weights[cut:]
        )

    def _stream(self) -> FloatArray:
        """Predict the tail, then learn it, whole moments of 128 rows at least."""
        rows, network = self._rows, self.network
        out = np.empty(len(rows) - self._cut, np.float32)
        for part, columns in self._columns(self._cut, len(rows)):
            batch = network.encode(columns, admit=True)
            ts = rows.ts[part]
            start = 0
            while start < len(batch):
                stop = min(start + _BATCH, len(batch))
                while stop < len(batch) and ts[stop] == ts[stop - 1]:
                    stop += 1
                some = slice(part.start + start, part.start + stop)
                out[some.start - self._cut : some.stop - self._cut] = network.predict_then_learn(
                    batch.take(slice(start, stop)),
                    rows.labels[some],
                    rows.weights[some],
                    offset=self._stack[some],
                )[0]
                start = stop
        return out
