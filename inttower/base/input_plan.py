"""The input plan: which inputs the base reads, and how they are scaled.

A *slot* is a kind of counter row: of all events, of the item, of the user, of a value of a field,
or of a pair of these. The plan says which facts of each slot are inputs; a :class:`Scaling` says
how a log's facts become z-scores with hinges. It is derived from the log's own first rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from inttower.base.counter_kernels import (
    COLD,
    FACTS,
    GAP_ACTED,
    GAP_SHOWN,
    HALF_LIVES,
    LIFT,
    LIFT_D,
    LIFT_R,
    LOG_C,
    LOG_DC,
    LOG_DN,
    LOG_N,
    NEVER,
    PROBE,
    RATES,
    RESID,
    blank_probe,
    describe,
)
from inttower.base.input_kernels import ITEM, describe_probes
from inttower.base.logistic_filter import FilterConfig
from inttower.base.text_keys import key_of, keys_of, list_keys
from inttower.core.batch import FloatArray
from inttower.core.contract import Columns
from inttower.core.spec import FeatureSpec, Field, Side
from inttower.errors import SpecError

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]

# values of a list that are read, and fields a side: each costs look-ups for every row
MAX_VALUES = 6
MAX_FIELDS = 8
# inputs of the widest filter: a row costs their square
MAX_INPUTS = 208
_STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 500.0)
_DEFAULT_STRENGTH = 20.0
_QUANTILES = (0.5, 0.9)
_RIDGES = (10.0, 100.0)
# among the filters, the one of item and user
RATES_ALONE = 1
_DECAYED = range(HALF_LIVES)

_ALL_FACTS = tuple(LIFT_D + k for k in _DECAYED)
_ITEM_FACTS = (
    LOG_N,
    LOG_C,
    LIFT,
    *(LOG_DN + k for k in _DECAYED),
    *(LIFT_D + k for k in _DECAYED),
    LIFT_R,
    LIFT_R + 1,
)
_USER_FACTS = (
    LOG_N,
    LOG_C,
    LIFT,
    RESID,
    LIFT_R,
    GAP_SHOWN,
    GAP_ACTED,
    COLD,
    *(LOG_DN + k for k in _DECAYED),
)
_USER_ITEM_FACTS = (LOG_N, LOG_C, LIFT, *(LOG_DN + k for k in _DECAYED))
_CONTEXT_FACTS = (LIFT, RESID, LIFT_D + 1)
_ITEM_CONTEXT_FACTS = (RESID,)
_VALUE_FACTS = (LIFT, LOG_N, RESID, LIFT_D, LIFT_D + 2)
_USER_VALUE_FACTS = (LOG_N, LOG_C, LIFT, RESID, *(LOG_DC + k for k in _DECAYED))


@dataclass(frozen=True, slots=True)
class Slot:
    """A kind of counter row.

    Args:
        name: for reports.
        start: first column of the keys.
        stop: one past the last: more than one for lists.
        pair: column of what its values are paired with; NEVER: with nothing.
        facts: that are inputs.
        hinged: whether hinges are added.
    """

    name: str
    start: int
    stop: int
    pair: int
    facts: tuple[int, ...]
    hinged: bool


class InputPlan:
    """The slots of a feature spec.

    Args:
        spec: its sparse and multi fields are read; of the dense ones those named.
        numbers: dense fields of width 1 that are inputs as they are.
    """

    def __init__(self, spec: FeatureSpec, numbers: Sequence[str] = ()) -> None:
        self.spec = spec
        self.numbers = tuple(numbers)
        for name in numbers:
            if spec.field(name).kind != "dense" or spec.field(name).width != 1:
                raise SpecError(f"{name!r} is no dense field of width 1: the base cannot read it")
        self._users = self._fields("user")
        self._items = self._fields("item")
        self.slots = self._slots()
        self.table = np.array([(s.start, s.stop, s.pair) for s in self.slots], np.int32)

    def _fields(self, side: Side) -> list[Field]:
        kinds = ("sparse", "multi")
        found = [f for f in self.spec.fields if f.side == side and f.kind in kinds and not f.is_id]
        return found[:MAX_FIELDS]

    def _slots(self) -> tuple[Slot, ...]:
        slots = [
            Slot("all", 0, 1, NEVER, _ALL_FACTS, hinged=False),
            Slot("item", 1, 2, NEVER, _ITEM_FACTS, hinged=True),
            Slot("user", 2, 3, NEVER, _USER_FACTS, hinged=True),
            Slot("user x item", 1, 2, 2, _USER_ITEM_FACTS, hinged=True),
        ]
        at = 3
        for field in self._users:
            stop = at + _width(field)
            slots.append(Slot(field.name, at, stop, NEVER, _CONTEXT_FACTS, hinged=False))
            slots.append(Slot(f"item x {field.name}", at, stop, 1, _ITEM_CONTEXT_FACTS, False))
            at = stop
        for field in self._items:
            stop = at + _width(field)
            slots.append(Slot(field.name, at, stop, NEVER, _VALUE_FACTS, hinged=True))
            slots.append(Slot(f"user x {field.name}", at, stop, 2, _USER_VALUE_FACTS, True))
            at = stop
        self.columns = at
        return tuple(slots)

    @property
    def item_columns(self) -> npt.NDArray[np.bool_]:
        """Which columns of the keys are of the item, bool [columns]."""
        first = 3 + sum(_width(f) for f in self._users)
        at = np.arange(self.columns)
        return np.asarray((at == 1) | (at >= first))

    @property
    def shared(self) -> npt.NDArray[np.bool_]:
        """Which slots say the same of all candidates of a request, bool [S]."""
        of_item = self.item_columns
        return np.array(
            [not of_item[s.start] and not (s.pair >= 0 and of_item[s.pair]) for s in self.slots]
        )

    def keys(self, columns: Columns) -> Ints:
        """Keys of rows, int64 [B, columns]; 0 where there is no value.

        Raises:
            SpecError: a field is missing.
        """
        return self.side_keys(columns, "user") | self.side_keys(columns, "item")

    def side_keys(self, columns: Columns, side: Side) -> Ints:
        """Keys of one side's fields, int64 [B, columns]; 0 in the other side's columns.

        Raises:
            SpecError: a field is missing.
        """
        mine = self.spec.id_field(side)
        ids = keys_of(mine.name, _column(columns, mine.name))
        out = np.zeros((len(ids), self.columns), np.int64)
        out[:, 1 if side == "item" else 2] = ids
        if side == "user":
            out[:, 0] = key_of("", "all")
        at = 3
        for field in (*self._users, *self._items):
            stop = at + _width(field)
            if field.side == side:
                values = _column(columns, field.name)
                if field.kind == "sparse":
                    out[:, at] = keys_of(field.name, values)
                else:
                    out[:, at:stop] = list_keys(field.name, values, stop - at)
            at = stop
        return out

    def number_matrix(self, columns: Columns, count: int) -> FloatArray:
        """The plain numbers of rows, float32 [B, m]."""
        out = np.empty((count, len(self.numbers)), np.float32)
        for at, name in enumerate(self.numbers):
            out[:, at] = np.asarray(columns[name], np.float32).reshape(count)
        return out


def _width(field: Field) -> int:
    return 1 if field.kind == "sparse" else min(field.max_length, MAX_VALUES)


def _column(columns: Columns, name: str) -> Sequence[str]:
    try:
        return columns[name]  # type: ignore[return-value]
    except KeyError:
        raise SpecError(
            f"column {name!r} is missing; there are {', '.join(sorted(columns))}"
        ) from None


@dataclass(frozen=True, eq=False)
class Scaling:
    """How facts become inputs. Arrays as :mod:`inttower.base.input_kernels` reads them.

    Attributes:
        strengths: [S, RATES], how many impressions the prior is worth in each rate.
        prior: the log's rate.
        scaling: [S, 4, FACTS]; places: int32 [S, 2, FACTS].
        number_scaling: [4, m]; number_places: int32 [2, m].
        cold: [S, FACTS], facts of a row that is not there.
        inputs: k.
    """

    strengths: Doubles
    prior: float
    scaling: Doubles
    places: npt.NDArray[np.int32]
    number_scaling: Doubles
    number_places: npt.NDArray[np.int32]
    cold: Doubles
    inputs: int

    def filters(self, plan: InputPlan) -> list[FilterConfig]:
        """The rate alone; item, user and trend; and all, with two ridges.

        The small ones hold the large ones down while a log has few positives, and cost nothing.
        """
        few = [0]
        for slot in range(ITEM + 2):
            few += self.places[slot, 0][self.places[slot, 0] >= 0].tolist()
        every = np.arange(self.inputs)
        return [
            FilterConfig(np.zeros(1, np.int64), 1.0),
            FilterConfig(np.array(sorted(few)), 100.0),
            *(FilterConfig(every, ridge) for ridge in _RIDGES),
        ]

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """All of it, to save."""
        names = ("strengths", "scaling", "places", "number_scaling", "number_places", "cold")
        out: dict[str, npt.NDArray[np.generic]] = {n: getattr(self, n).copy() for n in names}
        out["rest"] = np.array([self.prior, self.inputs])
        return out

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic] | bytes]) -> Scaling:
        """The inverse of :meth:`arrays`."""
        a: dict[str, npt.NDArray[Any]] = {k: np.array(v) for k, v in arrays.items()}
        prior, inputs = a.pop("rest").tolist()
        return cls(prior=prior, inputs=int(inputs), **a)


def first_scaling(plan: InputPlan) -> Scaling:
    """Before anything is known of a log: rates around 10 %, counts on their logarithms."""
    scaling = np.zeros((len(plan.slots), 4, FACTS))
    scaling[:, 1] = 0.5  # as a log of counts and a lift are spread on most logs
    strengths = np.full((len(plan.slots), RATES), _DEFAULT_STRENGTH)
    numbers = np.zeros((4, len(plan.numbers)))
    return _scaling(plan, strengths, 0.1, (scaling, numbers), hinged=False)


def derived_scaling(plan: InputPlan, probes: Doubles, labels: Ints, numbers: FloatArray) -> Scaling:
    """From rows of a log: what :func:`inttower.base.input_kernels.probe_slots` gave for them.

    Args:
        plan: the slots.
        probes: [n, S, PROBE].
        labels: 0/1 [n].
        numbers: float32 [n, m].
    """
    prior = float(np.clip((labels.sum() + 0.5) / (len(labels) + 1), 1e-5, 1 - 1e-5))
    strengths = np.empty((len(plan.slots), RATES))
    scaling = np.zeros((len(plan.slots), 4, FACTS))
    facts = np.empty((len(probes), FACTS))
    for slot in range(len(plan.slots)):
        mine = np.ascontiguousarray(probes[:, slot])
        strengths[slot] = _strengths(mine, labels, prior)
        describe_probes(mine, strengths[slot], prior, facts)
        scaling[slot] = _spread(facts)
    both = (scaling, _spread(numbers.astype(np.float64)))
    return _scaling(plan, strengths, prior, both, hinged=True)


def _strengths(probe: Doubles, labels: Ints, prior: float) -> Doubles:
    """The strengths whose rates would have predicted these labels best, [RATES]."""
    best = np.full(RATES, _DEFAULT_STRENGTH)
    there = probe[:, 0] >= 0
    y = labels[there]
    if len(y) < 2:
        return best
    for k in range(RATES):
        n, c = probe[there, 2 * k], np.maximum(probe[there, 2 * k + 1], 0.0)
        losses = []
        for strength in _STRENGTHS:
            p = np.clip((c + strength * prior) / (np.maximum(n, c) + strength), 1e-6, 1 - 1e-6)
            losses.append(-np.where(y > 0, np.log(p), np.log1p(-p)).sum())
        best[k] = _STRENGTHS[int(np.argmin(losses))]
    return best


def _spread(facts: Doubles) -> Doubles:
    """Mean, 1 / deviation and z at the two hinges [4, m] of columns; NaN is left out."""
    out = np.zeros((4, facts.shape[1]))
    for k in range(facts.shape[1]):
        column = facts[:, k][~np.isnan(facts[:, k])]
        if not len(column):
            continue
        mean, deviation = column.mean(), column.std()
        if deviation > 1e-6 * max(1.0, abs(mean)):
            out[:2, k] = mean, 1 / deviation
            out[2:, k] = (np.quantile(column, _QUANTILES) - mean) / deviation
    return out


def _scaling(
    plan: InputPlan,
    strengths: Doubles,
    prior: float,
    scaling: tuple[Doubles, Doubles],
    *,
    hinged: bool,
) -> Scaling:
    """Number the inputs; ``scaling``: of facts [S, 4, FACTS], of numbers [4, m]."""
    spreads, number_spread = scaling[0][:, :2], scaling[1][:2]
    shape = (len(plan.slots), 2, FACTS)
    places = np.full(shape, NEVER, np.int32)
    number_places = np.full((2, len(plan.numbers)), NEVER, np.int32)
    at = 1  # 0 is the intercept
    for slot, of in enumerate(plan.slots):
        for fact in of.facts:
            if spreads[slot, 1, fact] > 0:
                places[slot, 0, fact] = at
                at += 1
    for k in range(len(plan.numbers)):
        if number_spread[1, k] > 0:
            number_places[0, k] = at
            at += 1
    if hinged:
        for k in range(len(plan.numbers)):
            if number_places[0, k] != NEVER and at + 2 <= MAX_INPUTS:
                number_places[1, k] = at
                at += 2
        for slot, of in enumerate(plan.slots):
            for fact in of.facts if of.hinged else ():
                if places[slot, 0, fact] != NEVER and fact != COLD and at + 2 <= MAX_INPUTS:
                    places[slot, 1, fact] = at
                    at += 2
    cold = np.zeros((len(plan.slots), FACTS))
    nothing = np.empty(PROBE)
    blank_probe(nothing)
    for slot in range(len(plan.slots)):
        describe(nothing, strengths[slot], prior, cold[slot])
    return Scaling(
        strengths=strengths,
        prior=prior,
        scaling=scaling[0],
        places=places,
        number_scaling=scaling[1],
        number_places=number_places,
        cold=cold,
        inputs=at,
    )
