"""Live counters of a log, and the filter inputs that are computed from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inttower.base.counter_kernels import PROBE
from inttower.base.counter_table import CounterTable
from inttower.base.input_kernels import (
    SHOWN_EVENT,
    EventArrays,
    ScalingArrays,
    probe_slots,
    read_rows,
    run_events,
)
from inttower.base.input_plan import InputPlan, Scaling, derived_scaling, first_scaling
from inttower.core.batch import FloatArray, IntArray
from inttower.core.contract import Labels, State

# half-lives of decayed counts, as parts of the time that the first rows span
_HALF_LIFE_PARTS = (0.01, 0.05, 0.2)
_FIRST_HALF_LIVES = (60_000.0, 600_000.0, 3_600_000.0)
# rows that scaling is derived from at most, evenly out of all
_PROBED = 30_000
# events handled at a time
_CHUNK = 1024


@dataclass(frozen=True, eq=False)
class Events:
    """Impressions and actions in order of time, actions first within a moment.

    Attributes:
        what: int32 [E], SHOWN_EVENT or ACTION_EVENT.
        ts: int64 [E], ms: when each became known.
        keys: int64 [E, columns], from :meth:`InputPlan.keys`.
        numbers: float32 [E, m].
    """

    what: npt.NDArray[np.int32]
    ts: IntArray
    keys: IntArray
    numbers: FloatArray

    def __len__(self) -> int:
        return len(self.what)

    @property
    def arrays(self) -> EventArrays:
        """The events as loops see them."""
        return EventArrays(self.what, self.ts, self.keys, self.numbers)

    def take(self, part: slice | IntArray) -> Events:
        """Some of them."""
        return Events(self.what[part], self.ts[part], self.keys[part], self.numbers[part])

    def merged(self, other: Events) -> Events:
        """Both in order of time, actions first within a moment, else as they stand."""
        both = Events(
            np.concatenate([self.what, other.what]),
            np.concatenate([self.ts, other.ts]),
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.numbers, other.numbers]),
        )
        return both.take(np.lexsort((-both.what, both.ts)))


class CounterInputs:
    """Counters of a log, and inputs computed from them.

    Args:
        plan: which.
        limit: rows of counters at most.
    """

    def __init__(self, plan: InputPlan, limit: int) -> None:
        self.plan = plan
        self.table = CounterTable(limit)
        self.half_lives = np.array(_FIRST_HALF_LIVES)
        self.scaling = first_scaling(plan)

    @property
    def how(self) -> ScalingArrays:
        """Slots and scaling as loops see them."""
        s = self.scaling
        return ScalingArrays(
            self.plan.table,
            self.half_lives,
            s.strengths,
            s.prior,
            s.scaling,
            s.places,
            s.number_scaling,
            s.number_places,
            s.cold,
        )

    def run(self, events: Events) -> FloatArray:
        """Inputs of impressions [E, k] (of actions: anything), then all is counted."""
        x = np.empty((len(events), self.scaling.inputs), np.float32)
        width = int((self.plan.table[:, 1] - self.plan.table[:, 0]).sum())
        start = 0
        while start < len(events):
            stop = self.end_of_chunk(events, start)
            self.table.make_room((stop - start) * width)
            part = events.take(slice(start, stop)).arrays
            run_events(part, self.table.arrays, self.how, x[start:stop])
            start = stop
        return x

    @staticmethod
    def end_of_chunk(events: Events, start: int, size: int = _CHUNK) -> int:
        """One past a chunk of about ``size`` events that does not part a moment."""
        stop = min(start + size, len(events))
        while stop < len(events) and events.ts[stop] == events.ts[stop - 1]:
            stop += 1
        return stop

    def read(self, keys: IntArray, numbers: FloatArray, now: int) -> FloatArray:
        """Inputs of rows [n, k] as of ``now``, ms; nothing is counted."""
        n = len(keys)
        events = EventArrays(np.zeros(n, np.int32), np.full(n, now, np.int64), keys, numbers)
        x = np.empty((n, self.scaling.inputs), np.float32)
        read_rows(events, self.table.arrays, self.how, x)
        return x

    def derive(self, events: Events, labels: Labels, known: npt.NDArray[np.bool_]) -> None:
        """Half-lives, strengths and scaling from events [E]; leaves no counts.

        Args:
            events: in order.
            labels: 0/1 [E].
            known: bool [E]: impressions whose label is known.
        """
        shown = np.flatnonzero(known)
        span = max(float(events.ts[-1] - events.ts[0]), 1.0)
        self.table.clear()
        self.half_lives = np.maximum(np.array(_HALF_LIFE_PARTS) * span, 1.0)
        step = max(1, -(-len(shown) // _PROBED))
        asked = shown[::step]
        probes = np.empty((len(asked), len(self.plan.slots), PROBE))
        # the first event of each asked row's moment: the row may know only what comes before it
        moments = np.searchsorted(events.ts, events.ts[asked]).tolist()
        how = self.how
        start = 0
        for row, (event, first) in enumerate(zip(asked.tolist(), moments, strict=True)):
            # actions of the same moment are known
            moment = first + int(np.argmax(events.what[first : event + 1] == SHOWN_EVENT))
            if moment > start:
                self.run(events.take(slice(start, moment)))
                start = moment
            probe_slots(
                events.keys[event], int(events.ts[event]), self.table.arrays, how, probes[row]
            )
        self.scaling = derived_scaling(
            self.plan,
            probes,
            np.asarray(labels)[asked].astype(np.int64),
            events.numbers[asked],
        )
        self.table.clear()

    def state(self) -> State:
        """All of it, as copies."""
        state: State = {f"table.{k}": v for k, v in self.table.state().items()}
        state |= {f"scaling.{k}": v for k, v in self.scaling.arrays().items()}
        state["half_lives"] = self.half_lives.copy()
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`."""
        self.table.load_state(part_of_state(state, "table."))
        self.scaling = Scaling.of_arrays(part_of_state(state, "scaling."))
        self.half_lives = np.array(state["half_lives"], np.float64)


def part_of_state(state: Mapping[str, npt.NDArray[np.generic] | bytes], prefix: str) -> State:
    """The entries under a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
