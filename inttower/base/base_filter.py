"""The base: live counters, inputs computed from them, and logistic filters that learn them.

    numbers = base.shown(columns, ts)            # reads, then counts; one number a row
    base.logits(numbers)                         # as served; record it
    base.acted(Actions(columns, ts))             # actions became known: they count
    base.learn(numbers, labels, weights)         # the rows' labels are known
    base.correct(numbers, weights)               # learnt, and an action came after all
    base.close(numbers)                          # nothing more can come

It works from the first row on. Scaling, strengths and half-lives are derived from the log's own
first
rows: in :meth:`BaseFilter.fit` if there is a warm-up, otherwise each time that the positives have
doubled, until there are :data:`ENOUGH`. Both learn all rows so far again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inttower.base.counter_inputs import CounterInputs, Events, part_of_state
from inttower.base.early_rows import UNKNOWN, EarlyRows
from inttower.base.input_kernels import ACTION_EVENT, SHOWN_EVENT
from inttower.base.input_plan import RATES_ALONE, InputPlan
from inttower.base.logistic_filter import FilterAverage
from inttower.base.served_base import BaseDelta
from inttower.core.batch import FloatArray, IntArray
from inttower.core.contract import Columns, Labels, State
from inttower.core.spec import FeatureSpec
from inttower.errors import StateError

# rows of the rarer label after which scaling is derived for the first time ...
FIRST = 4
# ... and after which it stays
ENOUGH = 1024
# rows of the warm-up learnt between two looks at the filters' shares
_BLOCK = 256


@dataclass(frozen=True, slots=True)
class BaseConfig:
    """Bounds of the base, and what it reads.

    Args:
        numbers: dense fields that are inputs as they are.
        limit: most counter rows, about 100 bytes each.
        early: most rows that a live start learns again as positives double.
    """

    numbers: tuple[str, ...] = ()
    limit: int = 1_000_000
    early: int = 100_000


@dataclass(frozen=True, eq=False)
class Actions:
    """Positive actions that have become known.

    Attributes:
        columns: all fields of the impressions that they belong to, n rows.
        ts: int64 [n], rising: when each became known, ms.
    """

    columns: Columns
    ts: IntArray


def moments_of(ts: IntArray) -> IntArray:
    """First row of each run of equal times and, last, n.

    >>> moments_of(np.array([5, 5, 7])).tolist()
    [0, 2, 3]
    """
    n = len(ts)
    starts = np.flatnonzero(np.diff(ts, prepend=ts[0] - 1)) if n else np.zeros(0, np.int64)
    return np.append(starts, n)


class BaseFilter:
    """Live counters and the filters over them.

    Args:
        spec: the fields; sparse and multi ones are counted by value.
        config: bounds.
    """

    def __init__(self, spec: FeatureSpec, config: BaseConfig = BaseConfig()) -> None:
        self.config = config
        self.plan = InputPlan(spec, config.numbers)
        self.inputs = CounterInputs(self.plan, config.limit)
        self.filters = self._new_filters()
        self.fits = 0
        self._numbered = 0
        self._open: dict[int, tuple[int, FloatArray]] = {}  # by number: time, inputs
        self._early: EarlyRows | None = EarlyRows()
        self._counts = [0, 0]  # rows learnt as 0 and as 1
        self._due = FIRST
        self._sent = (-1, -1)  # evictions and fits that the last delta knew

    def _new_filters(self) -> FilterAverage:
        scaling = self.inputs.scaling
        logit = float(np.log(scaling.prior / (1 - scaling.prior)))
        return FilterAverage(scaling.filters(self.plan), scaling.inputs, logit)

    @property
    def weights(self) -> FloatArray:
        """Weights of the inputs as they serve, float32 [k]."""
        return self.filters.weights

    # ------------------------------------------------------------------ the warm-up

    def fit(self, events: Events, labels: Labels, weights: FloatArray | None = None) -> FloatArray:
        """Start again from these events, all of them known.

        Args:
            events: E of them.
            labels: 0/1 [E], of actions anything.
            weights: of the rows [E]; none: ones.

        Returns:
            Logits [E] of impressions, each from before its own moment was learnt (actions: 0).
        """
        shown = events.what == SHOWN_EVENT
        known = np.where(shown, labels, UNKNOWN).astype(np.uint8)
        given = np.ones(len(events), np.float32) if weights is None else weights
        self._open.clear()
        self._counts = [int((known == label).sum()) for label in (0, 1)]
        out = self._walk(events, known, given, {})
        self._numbered = int(shown.sum())
        self._early = None
        if not self._enough() and self._numbered <= self.config.early:
            self._early = EarlyRows()
            self._early.add(events, known)
        self._due = 2 * max(self._counts[1], FIRST // 2)
        return out

    def _walk(
        self,
        events: Events,
        labels: npt.NDArray[np.uint8],
        weights: FloatArray,
        numbers: Mapping[int, int],
    ) -> FloatArray:
        """Derive scaling, then learn what has labels; inputs of events in ``numbers`` are kept."""
        self.inputs.derive(events, labels, labels != UNKNOWN)
        self.filters = self._new_filters()
        self.fits += 1
        out = np.zeros(len(events), np.float32)
        start = 0
        while start < len(events):
            stop = self.inputs.end_of_chunk(events, start, _BLOCK)
            x = self.inputs.run(events.take(slice(start, stop)))
            rows = start + np.flatnonzero(labels[start:stop] != UNKNOWN)
            if len(rows):
                out[rows] = self.filters.learn(
                    x[rows - start],
                    labels[rows].astype(np.float32),
                    weights[rows],
                    moments_of(events.ts[rows]),
                )
            for event in range(start, stop) if numbers else ():
                if event in numbers:
                    self._open[numbers[event]] = (int(events.ts[event]), x[event - start].copy())
            start = stop
        return out

    # ------------------------------------------------------------------ the stream

    def shown(self, columns: Columns, ts: IntArray, actions: Actions | None = None) -> IntArray:
        """Impressions [n] in order of time: reads what was known before each, then counts them.

        Args:
            columns: all fields of them.
            ts: int64 [n], ms.
            actions: what became known meanwhile; it counts for later impressions.

        Returns:
            A number for each row, int64 [n], to name it by until :meth:`close`.
        """
        events = self._events(columns, ts, SHOWN_EVENT)
        if actions is not None and len(actions.ts):
            events = events.merged(self._events(actions.columns, actions.ts, ACTION_EVENT))
        x = self.inputs.run(events)[events.what == SHOWN_EVENT]
        numbers = np.arange(self._numbered, self._numbered + len(x))
        self._numbered += len(x)
        for number, at, row in zip(numbers.tolist(), ts.tolist(), x, strict=True):
            self._open[number] = (at, row.copy())
        self._keep_early(events)
        return numbers

    def acted(self, actions: Actions) -> None:
        """Positive actions that became known, and no impression meanwhile."""
        events = self._events(actions.columns, actions.ts, ACTION_EVENT)
        self.inputs.run(events)
        self._keep_early(events)

    def _events(self, columns: Columns, ts: IntArray, what: int) -> Events:
        keys = self.plan.keys(columns)
        numbers = self.plan.number_matrix(columns, len(keys))
        return Events(np.full(len(keys), what, np.int32), np.asarray(ts, np.int64), keys, numbers)

    def _keep_early(self, events: Events) -> None:
        if self._early is not None:
            self._early.add(events)
            if self._early.impressions > self.config.early:
                self._early = None

    def rows(self, numbers: IntArray) -> FloatArray:
        """Inputs of open rows, float32 [n, k].

        Raises:
            StateError: a row that is not open.
        """
        try:
            return np.stack([self._open[n][1] for n in numbers.tolist()])
        except KeyError as error:
            raise StateError(
                f"row {error} of the base is not open: it was closed, or never shown"
            ) from None

    def logits(self, numbers: IntArray) -> FloatArray:
        """Logits [n] of open rows with the weights of now."""
        return self.filters.logits(self.rows(numbers))

    def rates(self, numbers: IntArray) -> FloatArray:
        """Logits [n] of the filter over counters of item and user alone: what is to be beaten."""
        return self.filters.logits_of(RATES_ALONE, self.rows(numbers))

    def learn(self, numbers: IntArray, labels: Labels, weights: FloatArray | None = None) -> None:
        """Learn open rows, in the order of their impressions.

        Args:
            numbers: int64 [n], from :meth:`shown`.
            labels: 0/1 [n].
            weights: [n], over 0; none: ones.
        """
        if not len(numbers):
            return
        given = np.ones(len(numbers), np.float32) if weights is None else weights
        x = self.rows(numbers)
        ts = np.array([self._open[n][0] for n in numbers.tolist()], np.int64)
        y = np.asarray(labels, np.float32)
        self.filters.learn(x, y, given.astype(np.float32), moments_of(ts))
        self._note(numbers, y, given)

    def correct(
        self,
        numbers: IntArray,
        weights: FloatArray | None = None,
        labels: Labels | None = None,
        learnt: tuple[Labels, FloatArray] | None = None,
    ) -> None:
        """Open rows that were learnt with one label and weight, and have turned out another.

        Args:
            numbers: int64 [n], from :meth:`shown`.
            weights: [n], over 0; none: ones.
            labels: 0/1 [n], what they are; none: ones.
            learnt: label and weight [n] as they were learnt; none: 0, and the weight of now.
        """
        if not len(numbers):
            return
        given = np.ones(len(numbers), np.float32) if weights is None else weights
        y = np.ones(len(given), np.float32) if labels is None else np.asarray(labels, np.float32)
        y0, w0 = (np.zeros_like(y), given) if learnt is None else learnt
        old = np.asarray(y0, np.float32)
        x = self.rows(numbers)
        # the gradient of the new label less that of the old one
        p = 0.5 + 0.5 * np.tanh(0.5 * self.filters.logits(x))
        pull = (given * y - w0 * old - (given - w0) * p).astype(np.float32)
        # a pull down is one up on the other side
        sides = np.where(pull < 0, -1, 1).astype(np.float32)
        self.filters.correct(x * sides[:, None], np.abs(pull))
        self._counts[1] -= int(old.sum())
        self._counts[0] -= len(old) - int(old.sum())
        self._note(numbers, y, given)

    def close(self, numbers: IntArray) -> None:
        """Close rows: their windows have passed."""
        for number in numbers.tolist():
            self._open.pop(number, None)

    def score(self, columns: Columns, now: int) -> FloatArray:
        """Logits [n] of candidates as of ``now``, ms; nothing is counted: what a request does."""
        keys = self.plan.keys(columns)
        numbers = self.plan.number_matrix(columns, len(keys))
        return self.filters.logits(self.inputs.read(keys, numbers, now))

    def delta(self) -> BaseDelta:
        """What events have changed since the last call: for :class:`ServedBase`."""
        table = self.inputs.table
        # touched rows first: the round that they are noted with ends here
        rows = table.changed()
        now = (table.evictions, self.fits)
        whole = None
        if now != self._sent:
            whole, rows, self._sent = self.inputs.state(), rows[:0], now
        return BaseDelta(
            number=table.round,
            keys=table.keys[rows],
            values=table.values[rows],
            times=table.times[rows],
            weights=self.weights,
            whole=whole,
        )

    def _enough(self) -> bool:
        return min(self._counts) >= ENOUGH

    def _note(self, numbers: IntArray, y: FloatArray, weights: FloatArray) -> None:
        """Count labels; derive the scaling anew when the rarer of them has doubled."""
        positives = int(y.sum())
        self._counts[1] += positives
        self._counts[0] += len(y) - positives
        if self._early is None:
            return
        self._early.label(numbers, y.astype(np.uint8), weights)
        if min(self._counts) < self._due:
            return
        self._due = 2 * min(self._counts)
        events, labels, given = self._early.all()
        shown = np.flatnonzero(events.what == SHOWN_EVENT)
        open_ = {int(shown[n]): n for n in self._open}
        self._walk(events, labels, given, open_)
        if self._enough():
            self._early = None

    # ------------------------------------------------------------------ state

    def state(self) -> State:
        """Everything learnt, as copies; equal bases give equal bytes."""
        state: State = {f"inputs.{k}": v for k, v in self.inputs.state().items()}
        state |= {f"filters.{k}": v for k, v in self.filters.state().items()}
        numbers = np.array(list(self._open), np.int64)
        state["open.numbers"] = numbers
        state["open.ts"] = np.array([ts for ts, _ in self._open.values()], np.int64)
        k = self.inputs.scaling.inputs
        state["open.x"] = self.rows(numbers) if len(numbers) else np.zeros((0, k), np.float32)
        if self._early is not None:
            state |= {f"early.{k}": v for k, v in self._early.state().items()}
        state["counts"] = np.array(
            [
                self.fits,
                self._numbered,
                *self._counts,
                self._due,
                self._early is not None,
                *self._sent,
            ]
        )
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for a base of the same spec and config."""
        self.inputs.load_state(part_of_state(state, "inputs."))
        self.filters = self._new_filters()
        self.filters.load_state(part_of_state(state, "filters."))
        counts = np.asarray(state["counts"]).tolist()
        self.fits, self._numbered, self._counts = counts[0], counts[1], counts[2:4]
        self._due, self._sent = counts[4], (counts[6], counts[7])
        numbers, ts, x = (np.array(state[f"open.{name}"]) for name in ("numbers", "ts", "x"))
        self._open = {
            n: (at, row.copy()) for n, at, row in zip(numbers.tolist(), ts.tolist(), x, strict=True)
        }
        self._early = None
        if counts[5]:
            self._early = EarlyRows()
            self._early.load_state(part_of_state(state, "early."))
