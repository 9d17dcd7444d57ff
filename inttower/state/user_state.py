"""The user state: item factors, a belief about each user over them, and refits.

A network reads it as three dense inputs, which :attr:`UserState.fields` adds to the spec:

- ``user_state_SPEED`` (user side): the mean of the belief as of the impression;
- ``item_factors`` and ``item_factor_bias`` (item side): v and b of :mod:`inttower.state.factors`.

The dot of the first two (:func:`inttower.models.dots.state_dots`) is the belief's own prediction
for this user and item, an additive term that stays decoupled. Nothing here is learnt by gradients.

**In the warm-up** a network must not read vectors that have seen the label that it is learning. The
beliefs are as of each impression, but the factors are fitted on all rows. So the users are split
into folds, and each fold's rows get factors that were fitted without its users, rotated onto those
of the full fit. The stream uses the full fit.

**In the stream** call :meth:`UserState.learn` for a batch before :meth:`UserState.inputs`. Inputs
are as of each row's impression, so they hold the outcomes of the batch that had closed by then, and
no others.

**A refit** happens after each :attr:`UserStateConfig.refit_every` outcomes of the stream. It fits
the factors again on the newest outcomes, rotates them onto the factors before, and replays those
outcomes through new beliefs. So items that are new since the warm-up get factors of their own. Rows
whose impression was before the refit still get what was known then. A refit changes every item's
inputs; :attr:`UserState.fits` counts them, for callers that have published item vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from inttower.core.batch import SIDES, FloatArray, IntArray
from inttower.core.contract import Columns, Labels, State
from inttower.core.spec import FeatureSpec, Field
from inttower.errors import SpecError, StateError
from inttower.models.dots import ITEM_BIAS, ITEM_FACTORS, USER_STATE
from inttower.state.attributes import Attributes
from inttower.state.belief import MEDIUM, BeliefConfig, Beliefs, DriftRates
from inttower.state.factors import FactorConfig, Factors, fit_factors
from inttower.state.fitted import NOW, Fitted, means, under
from inttower.state.history import OutcomeHistory, OutcomeRows

Inputs = dict[str, FloatArray]

# rows that a warm-up walks through at a time
_CHUNK = 8192


@dataclass(frozen=True, slots=True)
class UserStateConfig:
    """Sizes and bounds of a user state.

    Args:
        factors: sizes and priors of the item factors.
        speeds: one belief a user for each.
        variance: of a new user's vector around what its attributes foretell.
        window_ms: the longest time from an impression to its closing.
        max_users: most users with a belief.
        folds: parts of the users in the warm-up; more than 4 measured no better.
        most_values: values of a static field that count as attributes, the most frequent ones.
        refit_every: outcomes of the stream between two refits; None: never.
        remember: newest outcomes that a refit is fitted on, about 20 bytes each. A user who has
            none
            of them starts from the prior.
    """

    factors: FactorConfig = field(default_factory=FactorConfig)
    speeds: tuple[DriftRates, ...] = (MEDIUM,)
    variance: float = 2.5
    window_ms: int = 10 * 60_000
    max_users: int = 1_000_000
    folds: int = 4
    most_values: int = 200
    refit_every: int | None = None
    remember: int = 1_000_000

    def __post_init__(self) -> None:
        if self.refit_every is not None and not 1 <= self.refit_every <= self.remember:
            raise SpecError(
                f"refit_every {self.refit_every} of a user state must be between 1 and remember"
                f" ({self.remember}): a refit is fitted on the remembered outcomes"
            )

    @property
    def belief(self) -> BeliefConfig:
        """Configuration of the beliefs over these factors."""
        return BeliefConfig(
            size=self.factors.size,
            speeds=self.speeds,
            variance=self.variance,
            window_ms=self.window_ms,
            max_users=self.max_users,
        )


class _Refits(msgspec.Struct):
    """Progress between two refits."""

    fits: int = 0
    outcomes: int = 0  # outcomes learnt since the last refit
    since: int | None = None  # the newest closing time that the last refit knew


class UserState:
    """Item factors and beliefs; learns every outcome in closing order.

    Args:
        spec: the log's fields; its sparse and multi fields are the attributes of users and items.
        config: shape and bounds.
    """

    def __init__(self, spec: FeatureSpec, config: UserStateConfig = UserStateConfig()) -> None:
        self.config = config
        self._spec = spec
        self._ids = {side: spec.id_field(side).name for side in SIDES}
        self._fitted = self._blank()
        # the fit before the last refit, kept while an impression from before it can be open
        self._before: Fitted | None = None
        self._refits = _Refits()
        self._history = OutcomeHistory(self._ids)
        self._warm_up_ts: list[IntArray] = []

    def _blank(self) -> Fitted:
        attributes = {side: Attributes(self._spec, side, self.config.most_values) for side in SIDES}
        return Fitted(self._ids, attributes, Beliefs(self.config.belief))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields that it adds to a network's spec."""
        size = self.config.factors.size
        return (
            *(Field(name, "user", "dense", width=size) for name in self._user_fields),
            Field(ITEM_FACTORS, "item", "dense", width=size),
            Field(ITEM_BIAS, "item", "dense"),
        )

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the columns that it reads: ids and attributes of both sides."""
        attributes = [name for a in self._fitted.attributes.values() for name in a.names]
        return (*self._ids.values(), *attributes)

    @property
    def _user_fields(self) -> list[str]:
        return [USER_STATE + speed.name for speed in self.config.speeds]

    @property
    def frontier(self) -> int | None:
        """The newest closing time learnt; rows must not close earlier."""
        return self._fitted.beliefs.frontier

    @property
    def fits(self) -> int:
        """How often factors were fitted: the warm-up's fit and all refits."""
        return self._refits.fits

    def __len__(self) -> int:
        """How many users have a belief."""
        return len(self._fitted.beliefs)

    # ------------------------------------------------------------------ the warm-up

    def collect(self, columns: Columns, ts: IntArray, closed_ts: IntArray, labels: Labels) -> None:
        """Collect rows of the warm-up.

        Args:
            columns: ids and attributes of both sides, n rows.
            ts: int64 [n], times of the impressions, ms.
            closed_ts: int64 [n], rising, also from call to call.
            labels: 0/1 [n].
        """
        self._history.add(columns, closed_ts, labels, self._fitted.attributes)
        self._warm_up_ts.append(np.array(ts, np.int64))

    def fit(self, threads: int = 1) -> Inputs:
        """Fit the factors on the collected rows, and learn the beliefs of their users.

        Args:
            threads: folds of users fitted side by side; the result is the same.

        Returns:
            The inputs of the collected rows, in order, from factors that never saw their users.
        """
        if not self._warm_up_ts:
            raise StateError(
                "a user state is fitted on the rows of a warm-up: call collect() first"
            )
        ts, self._warm_up_ts = np.concatenate(self._warm_up_ts), []
        self._fitted, factors, rows = self._fit(ts)
        inputs = self.blank_inputs(len(rows))
        outcomes = self._history.outcomes()
        fold = np.arange(len(rows.ids)) % self.config.folds

        def fill(number: int) -> None:
            """The inputs of one fold's rows."""
            mine = fold == number
            if not mine.any():
                return
            without = factors
            if not mine.all():
                without = fit_factors(
                    outcomes,
                    rows.attributes,
                    rows.item_attributes,
                    self.config.factors,
                    before=factors,
                    without_users=mine,
                )
            self._walk(rows.of(mine[rows.user]), Beliefs(self.config.belief), without, inputs)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, range(self.config.folds)))
        self._refits.fits += 1
        if self.config.refit_every is None:
            self._history = OutcomeHistory(self._ids)
        return inputs

    def _fit(self, ts: IntArray) -> tuple[Fitted, Factors, OutcomeRows]:
        """Fit all outcomes of the history, whose impressions were at ``ts``."""
        history, fitted = self._history, self._blank()
        users, items = (history.entities[side] for side in SIDES)
        attributes = {
            side: fitted.attributes[side].fit(history.entities[side].values) for side in SIDES
        }
        outcomes = history.outcomes()
        factors = fit_factors(outcomes, attributes["user"], attributes["item"], self.config.factors)
        old = self._fitted
        if old.factors is not None:
            row = np.array([old.items.get(text, -1) for text in items.codes], np.int64)
            counts = np.bincount(outcomes.items, minlength=len(row)) * (row >= 0)
            same = replace(old.factors, v=old.factors.v[row], b=old.factors.b[row])
            factors = factors.rotated_onto(same, counts)
        rows = OutcomeRows(
            ids=list(users.codes),
            user=outcomes.users,
            item=outcomes.items,
            ts=ts,
            closed_ts=history.closed_ts(),
            labels=outcomes.labels,
            attributes=attributes["user"],
            item_attributes=attributes["item"],
        )
        fitted.factors, fitted.items = factors, dict(items.codes)
        self._walk(rows.of(np.ones(len(rows), np.bool_)), fitted.beliefs, factors, None)
        return fitted, factors, rows

    def _walk(
        self, rows: OutcomeRows, beliefs: Beliefs, factors: Factors, into: Inputs | None
    ) -> None:
        """Learn rows in order; returns the means as of each impression."""
        for start in range(0, len(rows), _CHUNK):
            part = rows.part(slice(start, start + _CHUNK))
            prior = factors.user_prior(part.attributes[part.user])
            users = [part.ids[code] for code in part.user.tolist()]
            v, b = factors.v[part.item], factors.b[part.item]
            beliefs.learn(users, part.closed_ts, labels=part.labels, v=v, b=b, prior=prior)
            if into is not None:
                believed = means(beliefs, users, part.ts, prior)
                for k, name in enumerate(self._user_fields):
                    into[name][part.place] = believed[:, k]
                into[ITEM_FACTORS][part.place] = v
                into[ITEM_BIAS][part.place] = b

    def blank_inputs(self, count: int) -> Inputs:
        """Neutral inputs, for rows before the first fit."""
        return {
            f.name: np.zeros(count if f.width == 1 else (count, f.width), np.float32)
            for f in self.fields
        }

    # ------------------------------------------------------------------ the stream

    def learn(self, columns: Columns, closed_ts: IntArray, labels: Labels) -> None:
        """Learn rows that have closed, in order; read their :meth:`inputs` afterwards.

        A due refit comes first: its factors know none of these rows.

        Args:
            columns: ids and attributes of both sides, n rows.
            closed_ts: int64 [n], rising, also from call to call.
            labels: [n], 0 or 1; or a correction of an outcome that was learnt: ``FROM_NEGATIVE``
                where a 0 is a 1, ``FROM_POSITIVE`` where a 1 is a 0.

        Raises:
            StateError: a time earlier than one learnt before.
        """
        every, refits = self.config.refit_every, self._refits
        if every is not None:
            if refits.outcomes >= every:
                self._refit()
            self._history.add(columns, closed_ts, np.clip(labels, 0, 1), self._fitted.attributes)
            refits.outcomes += len(closed_ts)
        self._fitted.learn(columns, closed_ts, labels)
        if refits.since is not None and self._fitted.beliefs.horizon >= refits.since:
            self._before = None

    def _refit(self) -> None:
        self._history.keep_newest(self.config.remember)
        since = self.frontier
        self._before = self._fitted
        self._fitted, _, _ = self._fit(self._history.closed_ts())
        self._refits = _Refits(self._refits.fits + 1, 0, since)

    def inputs(self, columns: Columns, ts: IntArray) -> Inputs:
        """A network's inputs for rows: beliefs as of ``ts`` [n], and factors.

        Beliefs as of before the window are not kept. Such rows get the prior means, which know no
        label.
        """
        found = self._inputs(self._fitted, columns, ts)
        if self._before is None or self._refits.since is None:
            return found
        earlier = np.asarray(ts) < self._refits.since
        if earlier.any():
            then = self._inputs(self._before, columns, ts)
            for name, values in found.items():
                values[earlier] = then[name][earlier]
        return found

    def _inputs(self, fitted: Fitted, columns: Columns, ts: IntArray) -> Inputs:
        return {**self._user_inputs(fitted, columns, ts), **self._item_inputs(fitted, columns)}

    def user_inputs(self, columns: Columns) -> Inputs:
        """The user side's current inputs."""
        count = len(self._fitted.texts(columns, "user"))
        return self._user_inputs(self._fitted, columns, np.full(count, NOW))

    def item_inputs(self, columns: Columns) -> Inputs:
        """The item side's current inputs; they change with :attr:`fits` only."""
        return self._item_inputs(self._fitted, columns)

    def variances(self, user_id: str, columns: Columns) -> FloatArray:
        """Variance of the logit of the columns' items for one user, as of now: [N, speeds].

        It is large where little is known of the user's taste for such items; exploration can use
        it.
        """
        return self._fitted.variances(user_id, columns)

    def _user_inputs(self, fitted: Fitted, columns: Columns, ts: IntArray) -> Inputs:
        believed = fitted.means(columns, ts)
        return {name: believed[:, k] for k, name in enumerate(self._user_fields)}

    def _item_inputs(self, fitted: Fitted, columns: Columns) -> Inputs:
        v, b = fitted.item_vectors(columns)
        return {ITEM_FACTORS: v.astype(np.float32), ITEM_BIAS: b.astype(np.float32)}

    # ------------------------------------------------------------------ state

    def state(self) -> State:
        """Everything learnt; equal states give equal bytes."""
        state = self._fitted.state()
        state["signature"] = self._signature()
        state["refits"] = msgspec.json.encode(self._refits)
        if self.config.refit_every is not None:
            state |= {f"history.{name}": value for name, value in self._history.state().items()}
        if self._before is not None:
            state |= {f"before.{name}": value for name, value in self._before.state().items()}
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for one made with the same arguments.

        A state that never refits can load one that does; it leaves out the history.

        Raises:
            StateError: it is that of other fields, speeds or sizes.
        """
        if bytes(state.get("signature", b"")) != self._signature():
            raise StateError(
                f"the saved user state is of another shape than {self._signature().decode()}: give"
                " the spec and the config that it was learnt with"
            )
        self._fitted.load_state(state)
        self._before, before = None, under("before.", state)
        if before:
            self._before = self._blank()
            self._before.load_state(before)
        self._refits = msgspec.json.decode(bytes(state["refits"]), type=_Refits)
        self._history = OutcomeHistory(self._ids)
        if self.config.refit_every is not None:
            self._history.load_state(under("history.", state))

    def _signature(self) -> bytes:
        """What must be equal for a state to mean the same."""
        names = {side: attributes.names for side, attributes in self._fitted.attributes.items()}
        return msgspec.json.encode([self._ids, names, self.config.belief])
