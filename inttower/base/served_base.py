"""The base where it is served: the trainer's counters and weights, kept up to date by deltas.

    delta = base.delta()                       # trainer: what events have changed since the last
    served.apply(delta)                        # server
    served.logits(user, item_keys, now)        # a request's candidates

A counter's row is an item's row, a user's, or an entry of the user's table of affinities: all
travel as 64-bit keys with their numbers, and decayed counts are read as of the request. The
filter's weights come with each delta, so that a learning step makes no item row stale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from inttower.base.candidate_kernels import CandidateRows, score_candidates
from inttower.base.counter_inputs import CounterInputs
from inttower.base.input_kernels import read_numbers
from inttower.base.input_plan import InputPlan
from inttower.core.batch import FloatArray, IntArray
from inttower.core.contract import Columns, State
from inttower.errors import StateError


@dataclass(frozen=True, eq=False)
class BaseDelta:
    """What changed in a base since the delta before.

    Attributes:
        number: of this delta, rising by 1.
        keys: int64 [n].
        values: float32 [n, VALUES].
        times: int64 [n, TIMES].
        weights: float32 [k], of the inputs, as the filters' average has them.
        whole: the state of all counters and of the scaling, where rows alone do not say what has
            changed: the first time, after an eviction, and when scaling was derived anew.
    """

    number: int
    keys: IntArray
    values: FloatArray
    times: IntArray
    weights: FloatArray
    whole: State | None = None


class ServedBase:
    """A replica of a base's counters that scores candidates.

    Args:
        plan: as the trainer's.
        limit: counter rows held at most, as the trainer's.
    """

    def __init__(self, plan: InputPlan, limit: int) -> None:
        self._plan = plan
        self._inputs = CounterInputs(plan, limit)
        self._weights = np.zeros(self._inputs.scaling.inputs, np.float32)
        self.number: int | None = None

    def apply(self, delta: BaseDelta) -> None:
        """Take in a delta.

        Raises:
            StateError: one before it is missing; a later one that is whole can be applied.
        """
        if delta.whole is not None:
            self._inputs.load_state(delta.whole)
        elif self.number is None or delta.number > self.number + 1:
            raise StateError(
                f"delta {delta.number} of the base follows {self.number}: one is missing; start"
                " from a version, or from a delta that is whole"
            )
        elif delta.number <= self.number:
            return
        else:
            self._inputs.table.take(delta.keys, delta.values, delta.times)
        self._weights = delta.weights
        self.number = delta.number

    def item_keys(self, columns: Columns) -> IntArray:
        """Keys of items [n], to be made once an item: the item's fields alone are read."""
        return self._plan.side_keys(columns, "item")

    def logits(self, user: Columns, items: IntArray, now: int) -> FloatArray:
        """Logits float32 [n] of candidates.

        Args:
            user: the user's fields and the request's context, one row each.
            items: int64 [n, columns], from :meth:`item_keys`.
            now: time of the request, ms.
        """
        keys = np.where(self._plan.item_columns, items, self._plan.side_keys(user, "user"))
        table, how = self._inputs.table.arrays, self._inputs.how
        request = CandidateRows(keys, self._plan.shared, now, self._weights)
        out = score_candidates(request, table, how)
        if self._plan.numbers:
            x = np.zeros(len(self._weights), np.float32)
            given = self._plan.number_matrix(user, 1)[0]
            read_numbers(given, how.number_scaling, how.number_places, x)
            out += x @ self._weights
        return out


def delta_state(delta: BaseDelta) -> State:
    """A delta as plain arrays, to be sent."""
    state: State = {
        "number": np.array([delta.number]),
        "keys": delta.keys,
        "values": delta.values,
        "times": delta.times,
        "weights": delta.weights,
    }
    if delta.whole is not None:
        state |= {f"whole.{name}": value for name, value in delta.whole.items()}
    return state


def delta_of_state(state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> BaseDelta:
    """The inverse of :func:`delta_state`."""
    whole = {k.removeprefix("whole."): v for k, v in state.items() if k.startswith("whole.")}
    return BaseDelta(
        int(np.asarray(state["number"])[0]),
        np.asarray(state["keys"], np.int64),
        np.asarray(state["values"], np.float32),
        np.asarray(state["times"], np.int64),
        np.asarray(state["weights"], np.float32),
        whole or None,
    )
