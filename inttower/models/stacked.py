"""The stacked model, the default score: base + user state + a network as a residual.

    numbers, logits = model.shown(columns, ts)        # record the logits; impressions are counted
    model.acted(Actions(columns, ts))                 # actions became known
    model.learn(numbers, labels, weights, known_at)   # the rows' labels are known
    model.correct(numbers, weights)                   # learnt, and an action came after all
    model.close(numbers)

**Parts.** The base (:mod:`inttower.base.base_filter`) learns from the first row on. The user state
(:mod:`inttower.state.user_state`) predicts by itself; it takes part where the warm-up's last tenth
shows that it helps (:func:`inttower.base.mixing.gate`), and with weights found there: together they
are the *stack*. The network learns with the stack's logit as an offset, and its output starts at 0.
:class:`inttower.base.mixing.MixingWeights` weights the parts; the stream keeps updating them.

**The warm-up** fits base and state on all its rows. The choices that matter are made by predicting
its last tenth: the state's shape, whether it takes part, how many epochs the network learns
(possibly none) and its rate in the stream. That tenth is then learnt like the stream.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from inttower.base.base_filter import Actions, BaseConfig, BaseFilter
from inttower.base.counter_inputs import part_of_state
from inttower.base.input_kernels import SHOWN_EVENT
from inttower.base.mixing import stacked_mixing
from inttower.core.batch import FloatArray, IntArray
from inttower.core.contract import Columns, Labels, State
from inttower.core.learner import Learner
from inttower.core.spec import FeatureSpec
from inttower.errors import StateError
from inttower.models.stack_warm_up import (
    ResidualFit,
    StateSelection,
    WarmUpRows,
    fitted_state,
    state_logits,
)
from inttower.state.belief import MEDIUM, SLOW
from inttower.state.factors import FactorConfig
from inttower.state.user_state import UserState, UserStateConfig

Doubles = npt.NDArray[np.float64]
MakeNetwork = Callable[[FeatureSpec], Learner]


# shapes of the user state to choose from: small and still for few rows, large and drifting for many
STATES = (
    UserStateConfig(
        factors=FactorConfig(size=8, vector_precision=50.0), speeds=(SLOW,), variance=1.0
    ),
    UserStateConfig(factors=FactorConfig(size=16), speeds=(MEDIUM,)),
    UserStateConfig(factors=FactorConfig(size=32), speeds=(MEDIUM,)),
)


@dataclass(frozen=True, slots=True)
class StackedConfig:
    """What the parts are.

    Args:
        base: of the base.
        states: shapes of the user state among which the warm-up chooses; none: no state.
        epochs: of the network at most.
        stream_rates: of Adam in the stream, among which the warm-up chooses.
        batch: rows of a learning step of the network at least; it waits for as many.
    """

    base: BaseConfig = field(default_factory=BaseConfig)
    states: tuple[UserStateConfig, ...] = STATES
    epochs: int = 3
    stream_rates: tuple[float, ...] = (1e-4, 3e-4)
    batch: int = 128


@dataclass(frozen=True, slots=True)
class _OpenRow:
    """A row between its impression and its closing."""

    columns: dict[str, Any]
    parts: Doubles  # logits of base, stack and network, as predicted


class Stacked:
    """The stack behind calls in the order of a stream.

    Args:
        spec: the log's fields.
        network: makes the residual of a spec (the log's, with the state's fields if it takes part);
            none: there is none.
        config: of the parts.
        seed: of the network's warm-up.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        network: MakeNetwork | None,
        config: StackedConfig = StackedConfig(),
        *,
        seed: int = 0,
    ) -> None:
        self.spec = spec
        self.config = config
        self.base = BaseFilter(spec, config.base)
        self.state_part: UserState | None = None
        self.stack_weights = (1.0, 0.0)  # of base and state
        self.network: Learner | None = None
        self.mixing = stacked_mixing()
        self.choices: dict[str, Any] = {}
        self._make = network
        self._seed = seed
        self._open: dict[int, _OpenRow] = {}
        self._waiting: list[tuple[dict[str, Any], float, float, float]] = []

    # ------------------------------------------------------------------ the warm-up

    def fit(self, rows: WarmUpRows, progress: Callable[[str, float], None] | None = None) -> None:
        """Fit all parts on rows whose labels are known; see the module."""
        say = progress or _quiet
        say("base", 0.0)
        events, labels, weights = rows.events(self.base.plan)
        shown = events.what == SHOWN_EVENT
        z_base = self.base.fit(events, labels, weights)[shown].astype(np.float64)
        del events
        choice = StateSelection(self.spec, self.config.states, say).choose(rows, z_base)
        self.state_part, self.stack_weights = None, choice.weights
        self.choices = {"state_size": choice.config.factors.size if choice.config else 0}
        spec, stack = self.spec, z_base
        inputs: dict[str, FloatArray] = {}
        if choice.config is not None:
            say("user state", 0.0)
            self.state_part, inputs = fitted_state(self.spec, choice.config, rows)
            stack = self._stack(z_base, inputs)
            spec = FeatureSpec((*spec.fields, *self.state_part.fields))
        self.mixing = stacked_mixing()
        if self._make is None:
            return
        fit = ResidualFit(self._make(spec), rows, stack, inputs)
        fit.train(
            self._seed,
            self.config.epochs,
            self.config.stream_rates,
            lambda part: say("network", part),
        )
        self.network = fit.network
        self.choices |= {"epochs": fit.epochs, "rate": fit.rate}
        tail = slice(rows.tail(), None)
        parts = np.stack([z_base[tail], stack[tail], fit.tail.astype(np.float64)], 1)
        self.mixing.update(
            parts, rows.labels[tail].astype(np.float64), rows.weights[tail].astype(np.float64)
        )

    def _stack(self, base: Doubles, inputs: Mapping[str, FloatArray]) -> Doubles:
        a, b = self.stack_weights
        return np.asarray(a * base + b * state_logits(inputs))

    # ------------------------------------------------------------------ the stream

    def parts(self, numbers: IntArray) -> Doubles:
        """Logits of base, stack and network [n, 3] as open rows were predicted."""
        return np.stack([self._row(n).parts for n in numbers.tolist()])

    @property
    def weights(self) -> dict[str, float]:
        """How much each part counts in the score: of base, user state and network."""
        base, stack, network = self.mixing.weights
        a, b = self.stack_weights
        return {
            "base": float(base + stack * a),
            "user_state": float(stack * b),
            "network": float(network),
        }

    def shown(
        self, columns: Columns, ts: IntArray, actions: Actions | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Impressions [n] in order of time, and what became known meanwhile.

        Between two calls of :meth:`learn` it makes no difference how they are cut into calls.

        Returns:
            A number for each row, to name it by until :meth:`close`, and its logit.
        """
        numbers = self.base.shown(columns, ts, actions)
        z_base = self.base.logits(numbers).astype(np.float64)
        parts, given = self._parts(columns, ts, z_base)
        for at, number in enumerate(numbers.tolist()):
            row: dict[str, Any] = {name: values[at] for name, values in given.items()}
            self._open[number] = _OpenRow(row, parts[at])
        return numbers, self._mixed(parts)

    def score(self, columns: Columns, now: int) -> FloatArray:
        """Logits [n] of candidates as of ``now``, ms: nothing is counted or learnt."""
        z_base = self.base.score(columns, now).astype(np.float64)
        ts = np.full(len(z_base), now, np.int64)
        return self._mixed(self._parts(columns, ts, z_base)[0])

    def _parts(
        self, columns: Columns, ts: IntArray, z_base: Doubles
    ) -> tuple[Doubles, dict[str, Any]]:
        """Logits of the parts [n, 3], and the columns with the state's inputs."""
        given = {f.name: columns[f.name] for f in self.spec.fields}
        stack, network = z_base, np.zeros(len(z_base))
        if self.state_part is not None:
            inputs = self.state_part.inputs(columns, ts)
            given |= inputs
            stack = self._stack(z_base, inputs)
        if self.network is not None:
            z = self.network.predict(self.network.encode(given, admit=False))
            network = z.astype(np.float64)
        return np.stack([z_base, stack, network], 1).astype(np.float64), given

    def _mixed(self, parts: Doubles) -> FloatArray:
        # a weight of 0 silences a part that is not finite
        weights = self.mixing.weights
        used = weights > 0
        clean = np.nan_to_num(parts[:, used], nan=0.0, posinf=50.0, neginf=-50.0)
        return np.asarray(clean @ weights[used], np.float32)

    def acted(self, actions: Actions) -> None:
        """Positive actions that became known, and no impression meanwhile."""
        self.base.acted(actions)

    def learn(
        self, numbers: IntArray, labels: Labels, weights: FloatArray | None, known_at: int
    ) -> None:
        """Learn open rows, in the order of their impressions.

        Args:
            numbers: int64 [n], from :meth:`shown`.
            labels: 0/1 [n].
            weights: [n]; none: ones.
            known_at: time of now in the stream, ms.
        """
        if not len(numbers):
            return
        given = np.ones(len(numbers), np.float32) if weights is None else weights
        rows = [self._row(n) for n in numbers.tolist()]
        y = np.asarray(labels, np.float64)
        self.base.learn(numbers, labels, given)
        self.mixing.update(np.stack([r.parts for r in rows]), y, given.astype(np.float64))
        if self.state_part is not None:
            closed = np.full(len(rows), known_at, np.int64)
            self.state_part.learn(_columns([r.columns for r in rows]), closed, np.asarray(labels))
        for row, label, weight in zip(rows, y.tolist(), given.tolist(), strict=True):
            self._waiting.append((row.columns, label, weight, float(row.parts[1])))
        if len(self._waiting) >= self.config.batch:
            self._step()

    def correct(
        self,
        numbers: IntArray,
        weights: FloatArray | None = None,
        labels: Labels | None = None,
        learnt: tuple[Labels, FloatArray] | None = None,
    ) -> None:
        """Open rows that were learnt with one label and weight, and have turned out another.

        The user state keeps what it learnt: a belief has no step that takes an outcome back.

        Args:
            numbers: int64 [n], from :meth:`shown`.
            weights: [n], over 0; none: ones.
            labels: 0/1 [n], what they are; none: ones.
            learnt: label and weight [n] as they were learnt; none: 0, and the weight of now.
        """
        if not len(numbers):
            return
        given = np.ones(len(numbers), np.float32) if weights is None else weights
        new = np.ones(len(given)) if labels is None else np.asarray(labels, np.float64)
        y0, w0 = (np.zeros(len(new)), given) if learnt is None else learnt
        old = np.asarray(y0, np.float64)
        self.base.correct(numbers, given, new, (old, w0))
        rows = [self._row(n) for n in numbers.tolist()]
        parts = np.stack([r.parts for r in rows])
        self.mixing.update(parts, new, given.astype(np.float64))
        self.mixing.update(parts, old, -w0.astype(np.float64))
        each = zip(rows, new.tolist(), given.tolist(), old.tolist(), w0.tolist(), strict=True)
        for row, y, w, y_learnt, w_learnt in each:
            self._waiting.append((row.columns, y, w, float(row.parts[1])))
            self._waiting.append((row.columns, y_learnt, -w_learnt, float(row.parts[1])))

    def _row(self, number: int) -> _OpenRow:
        try:
            return self._open[number]
        except KeyError:
            raise StateError(f"row {number} is not open: it was closed, or never shown") from None

    def _step(self) -> None:
        """One step of the network on all rows that wait."""
        waiting, self._waiting = self._waiting, []
        if self.network is None:
            return
        columns, labels, weights, offset = zip(*waiting, strict=True)
        self.network.predict_then_learn(
            self.network.encode(_columns(columns), admit=True),
            np.array(labels, np.float32),
            np.array(weights, np.float32),
            offset=np.array(offset, np.float32),
        )

    def close(self, numbers: IntArray) -> None:
        """Rows that nothing more can come of."""
        self.base.close(numbers)
        for number in numbers.tolist():
            self._open.pop(number, None)

    # ------------------------------------------------------------------ state

    def state(self) -> State:
        """Everything learnt and all that waits, as copies; equal models give equal bytes."""
        state: State = {f"base.{k}": v for k, v in self.base.state().items()}
        state |= {f"mixing.{k}": v for k, v in self.mixing.state().items()}
        if self.network is not None:
            state |= {f"network.{k}": v for k, v in self.network.state().items()}
        facts: dict[str, Any] = {"weights": self.stack_weights, "choices": self.choices}
        if self.state_part is not None:
            state |= {f"state.{k}": v for k, v in self.state_part.state().items()}
            size = self.choices["state_size"]
            facts["shape"] = [c.factors.size for c in self.config.states].index(size)
        state["open.parts"] = np.array([r.parts for r in self._open.values()]).reshape(-1, 3)
        state["open.rows"] = _packed([r.columns for r in self._open.values()])
        state["open.numbers"] = np.array(list(self._open), np.int64)
        state["waiting.rows"] = _packed([w[0] for w in self._waiting])
        state["waiting.rest"] = np.array([w[1:] for w in self._waiting]).reshape(-1, 3)
        state["facts"] = json.dumps(facts).encode()
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for a model made with the same arguments."""
        self.base.load_state(part_of_state(state, "base."))
        self.mixing.load_state(part_of_state(state, "mixing."))
        facts = json.loads(bytes(state["facts"]))
        self.stack_weights, self.choices = tuple(facts["weights"]), facts["choices"]
        self.state_part, spec = None, self.spec
        if "shape" in facts:
            self.state_part = UserState(spec, self.config.states[facts["shape"]])
            self.state_part.load_state(part_of_state(state, "state."))
            spec = FeatureSpec((*spec.fields, *self.state_part.fields))
        self.network = None
        learnt = part_of_state(state, "network.")
        if learnt and self._make is not None:
            self.network = self._make(spec)
            self.network.load_state(learnt)
            self.network.set_rate(self.choices["rate"])
        numbers = np.asarray(state["open.numbers"]).tolist()
        parts = np.array(state["open.parts"], np.float64)
        rows = _unpacked(bytes(state["open.rows"]))
        self._open = {
            n: _OpenRow(row, part) for n, row, part in zip(numbers, rows, parts, strict=True)
        }
        rest = np.asarray(state["waiting.rest"]).tolist()
        waiting = _unpacked(bytes(state["waiting.rows"]))
        self._waiting = [(row, *more) for row, more in zip(waiting, rest, strict=True)]


def _quiet(_what: str, _part: float) -> None:
    return None


def _columns(rows: Sequence[dict[str, Any]]) -> Columns:
    """Columns of rows: texts as lists, numbers as arrays."""
    out: dict[str, Any] = {}
    for name, first in rows[0].items():
        values = [row[name] for row in rows]
        numeric = isinstance(first, np.floating | np.ndarray | float)
        out[name] = np.array(values, np.float32) if numeric else values
    return out


def _packed(rows: Sequence[dict[str, Any]]) -> bytes:
    return msgspec.msgpack.encode(rows, enc_hook=_plain)


def _plain(value: object) -> object:
    if isinstance(value, np.ndarray):
        return {"f": value.astype(np.float32).tobytes()}
    if isinstance(value, np.floating):
        return float(value)
    raise TypeError(f"a row holds a {type(value).__name__}")


def _unpacked(data: bytes) -> list[dict[str, Any]]:
    rows = msgspec.msgpack.decode(data, type=list[dict[str, Any]])
    for row in rows:
        for name, value in row.items():
            if isinstance(value, dict):
                row[name] = np.frombuffer(value["f"], np.float32)
    return rows
