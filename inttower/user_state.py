"""The user state beside a network: item factors, and a belief about each user over them.

What a network is given of it are three dense inputs, which :attr:`UserState.fields` adds to its
spec:

- ``user_state_SPEED`` (user side): the mean of the belief as it stood at the impression;
- ``item_factors`` and ``item_factor_bias`` (item side): v and b of :mod:`inttower.factors`.

The dot of the first two (:func:`state_dots`) is the logit that the belief itself predicts, an
additive term that stays decoupled. Nothing here is learnt by gradients.

**In the warm-up** a network must not be shown vectors that have seen the label which it is to
learn. The beliefs of a row are as of its impression, but the factors are fitted on all rows, so the
users are dealt into folds, and the rows of each fold are given factors that were fitted without
its users, rotated onto those of the full fit. In the stream all is from the full fit.

**In the stream** call :meth:`UserState.learn` for a batch before :meth:`UserState.inputs`: the
inputs are as of each row's impression, so they know the outcomes of the batch that had closed by
then, and no others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from inttower.attributes import Attributes
from inttower.batch import SIDES, FloatArray, IntArray
from inttower.belief import MEDIUM, BeliefConfig, Beliefs, Speed
from inttower.contract import Columns, Labels, State
from inttower.dots import Dot
from inttower.errors import StateError
from inttower.factors import FactorConfig, Factors, Outcomes, fit_factors
from inttower.spec import FeatureSpec, Field, Side

Inputs = dict[str, FloatArray]

USER_STATE = "user_state_"
ITEM_FACTORS = "item_factors"
ITEM_BIAS = "item_factor_bias"

# rows that a warm-up walks through at a time
_CHUNK = 8192
_NOW = int(np.iinfo(np.int64).max)


@dataclass(frozen=True, slots=True)
class UserStateConfig:
    """Shape and bounds.

    Args:
        factors: of the item factors.
        speeds: one belief a user for each.
        window_ms: the longest time from an impression to its closing.
        max_users: beliefs held at most.
        folds: parts of the users in the warm-up; 4 measured as good as more.
        most_values: values of a static field that count as attributes, the most frequent ones.
    """

    factors: FactorConfig = field(default_factory=FactorConfig)
    speeds: tuple[Speed, ...] = (MEDIUM,)
    window_ms: int = 10 * 60_000
    max_users: int = 1_000_000
    folds: int = 4
    most_values: int = 200

    @property
    def belief(self) -> BeliefConfig:
        """Of the beliefs over these factors."""
        return BeliefConfig(
            size=self.factors.size,
            speeds=self.speeds,
            window_ms=self.window_ms,
            max_users=self.max_users,
        )


@dataclass
class _Collected:
    """Rows of a warm-up, in the order of their closing."""

    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    user: list[IntArray] = field(default_factory=list)
    item: list[IntArray] = field(default_factory=list)
    ts: list[IntArray] = field(default_factory=list)
    closed_ts: list[IntArray] = field(default_factory=list)
    labels: list[npt.NDArray[np.float64]] = field(default_factory=list)


def state_dots(spec: FeatureSpec) -> tuple[Dot, ...]:
    """The terms of a spec that has :attr:`UserState.fields`: together they start as one logit."""
    names = [f.name for f in spec.of_side("user", "dense") if f.name.startswith(USER_STATE)]
    return tuple(Dot(name, ITEM_FACTORS, first=1 / len(names)) for name in names)


class UserState:
    """Item factors and beliefs, fed by every outcome in the order of closing.

    Args:
        spec: the log's fields; its sparse and multi fields are the attributes of users and items.
        config: shape and bounds.
    """

    def __init__(self, spec: FeatureSpec, config: UserStateConfig = UserStateConfig()) -> None:
        self.config = config
        self._ids = {side: spec.id_field(side).name for side in SIDES}
        self._attributes = {side: Attributes(spec, side, config.most_values) for side in SIDES}
        self._beliefs = Beliefs(config.belief)
        self._factors: Factors | None = None
        self._items: dict[str, int] = {}
        self._collected = _Collected()

    @property
    def fields(self) -> tuple[Field, ...]:
        """What it adds to the spec of a network."""
        size = self.config.factors.size
        return (
            *(Field(name, "user", "dense", width=size) for name in self._user_fields),
            Field(ITEM_FACTORS, "item", "dense", width=size),
            Field(ITEM_BIAS, "item", "dense"),
        )

    @property
    def _user_fields(self) -> list[str]:
        return [USER_STATE + speed.name for speed in self.config.speeds]

    @property
    def frontier(self) -> int | None:
        """The newest closing time learnt; rows must not close earlier."""
        return self._beliefs.frontier

    def __len__(self) -> int:
        """Users of whom something is believed."""
        return len(self._beliefs)

    # ------------------------------------------------------------------ the warm-up

    def collect(self, columns: Columns, ts: IntArray, closed_ts: IntArray, labels: Labels) -> None:
        """Take in rows of the warm-up.

        Args:
            columns: ids and attributes of both sides, n rows.
            ts: int64 [n], times of the impressions, ms.
            closed_ts: int64 [n], rising, also from call to call.
            labels: 0/1 [n].
        """
        kept = self._collected
        sides: tuple[tuple[Side, dict[str, int], list[IntArray]], ...] = (
            ("user", kept.users, kept.user),
            ("item", kept.items, kept.item),
        )
        for side, codes, into in sides:
            new: list[int] = []
            row = np.empty(len(ts), np.int64)
            for at, text in enumerate(_texts(columns, self._ids[side])):
                code = codes.get(text)
                if code is None:
                    code = codes[text] = len(codes)
                    new.append(at)
                row[at] = code
            into.append(row)
            self._attributes[side].collect(columns, new)
        kept.ts.append(np.asarray(ts, np.int64))
        kept.closed_ts.append(np.asarray(closed_ts, np.int64))
        kept.labels.append(np.asarray(labels, np.float64))

    def fit(self) -> Inputs:
        """Fit the factors on what was collected, and believe what it says of its users.

        Returns:
            The inputs of the collected rows, in order, from factors that never saw their users.
        """
        kept, self._collected = self._collected, _Collected()
        if not kept.ts:
            raise StateError("a user state is fitted on the rows of a warm-up: collect some")
        user, item = np.concatenate(kept.user), np.concatenate(kept.item)
        ts, closed = np.concatenate(kept.ts), np.concatenate(kept.closed_ts)
        labels = np.concatenate(kept.labels)
        attributes = {side: self._attributes[side].fit() for side in SIDES}
        outcomes = Outcomes(user, item, labels)
        config = self.config.factors

        factors = fit_factors(outcomes, attributes["user"], attributes["item"], config)
        rows = _Rows(list(kept.users), user, item, ts, closed, labels, attributes["user"])
        inputs = self.blank_inputs(len(user))
        fold = np.arange(len(kept.users)) % self.config.folds
        for number in range(self.config.folds):
            mine = fold == number
            if not mine.any():
                continue
            without = factors
            if not mine.all():
                without = fit_factors(
                    outcomes,
                    attributes["user"],
                    attributes["item"],
                    config,
                    before=factors,
                    without_users=mine,
                )
            self._walk(rows.of(mine[user]), Beliefs(self.config.belief), without, inputs)
        self._factors, self._items = factors, kept.items
        self._beliefs = Beliefs(self.config.belief)
        self._walk(rows.of(np.ones(len(user), np.bool_)), self._beliefs, factors, None)
        return inputs

    def _walk(self, rows: _Rows, beliefs: Beliefs, factors: Factors, into: Inputs | None) -> None:
        """Let beliefs learn rows in order, and note what they said at each impression."""
        for start in range(0, len(rows), _CHUNK):
            part = rows.part(slice(start, start + _CHUNK))
            prior = factors.user_prior(part.attributes[part.user])
            users = [part.ids[code] for code in part.user.tolist()]
            v, b = factors.v[part.item], factors.b[part.item]
            beliefs.learn(users, part.closed_ts, labels=part.labels, v=v, b=b, prior=prior)
            if into is not None:
                means = _means(beliefs, users, part.ts, prior)
                for k, name in enumerate(self._user_fields):
                    into[name][part.place] = means[:, k]
                into[ITEM_FACTORS][part.place] = v
                into[ITEM_BIAS][part.place] = b

    def blank_inputs(self, count: int) -> Inputs:
        """Inputs that say nothing: what stands in the place of rows not yet fitted."""
        return {
            f.name: np.zeros(count if f.width == 1 else (count, f.width), np.float32)
            for f in self.fields
        }

    # ------------------------------------------------------------------ the stream

    def learn(self, columns: Columns, closed_ts: IntArray, labels: Labels) -> None:
        """Take in rows that have closed, in order; their :meth:`inputs` may be asked for after it.

        Raises:
            StateError: a time earlier than one learnt before.
        """
        v, b = self._item_vectors(columns)
        self._beliefs.learn(
            _texts(columns, self._ids["user"]),
            closed_ts,
            labels=labels,
            v=v,
            b=b,
            prior=self._prior(columns),
        )

    def inputs(self, columns: Columns, ts: IntArray) -> Inputs:
        """What a network is given of rows: beliefs as they stood at ``ts`` [n], and factors.

        What was believed longer ago than the window is forgotten: such rows get what was expected
        before any outcome, which cannot know a label that it must not.
        """
        return {**self._user_inputs(columns, ts), **self.item_inputs(columns)}

    def user_inputs(self, columns: Columns) -> Inputs:
        """The user side's inputs as of now."""
        count = len(_texts(columns, self._ids["user"]))
        return self._user_inputs(columns, np.full(count, _NOW))

    def item_inputs(self, columns: Columns) -> Inputs:
        """The item side's inputs; they change with :meth:`fit` alone."""
        v, b = self._item_vectors(columns)
        return {ITEM_FACTORS: v.astype(np.float32), ITEM_BIAS: b.astype(np.float32)}

    def variances(self, user_id: str, columns: Columns) -> FloatArray:
        """Variance of the logit of the columns' items for one user, as of now: [N, speeds].

        How little is known of this user in the direction of each item: what exploration goes by.
        """
        return self._beliefs.variances(user_id, self._item_vectors(columns)[0])

    def _user_inputs(self, columns: Columns, ts: IntArray) -> Inputs:
        users = _texts(columns, self._ids["user"])
        means = _means(self._beliefs, users, np.asarray(ts, np.int64), self._prior(columns))
        return {name: means[:, k] for k, name in enumerate(self._user_fields)}

    def _prior(self, columns: Columns) -> npt.NDArray[np.float64]:
        attributes = self._attributes["user"].of(columns)
        if self._factors is None:
            return np.zeros((len(attributes), self.config.factors.size))
        return self._factors.user_prior(attributes)

    def _item_vectors(
        self, columns: Columns
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Vectors [n, p] and biases [n]; of new items, those that their attributes foretell."""
        texts = _texts(columns, self._ids["item"])
        if self._factors is None:
            return np.zeros((len(texts), self.config.factors.size)), np.zeros(len(texts))
        row = np.array([self._items.get(text, -1) for text in texts], np.int64)
        v, b = self._factors.v[row], self._factors.b[row]
        new = np.flatnonzero(row < 0)
        if len(new):
            some = {name: [columns[name][at] for at in new] for name in self._item_columns}
            foretold = self._attributes["item"].of(some) @ self._factors.item_weights
            v[new], b[new] = foretold[:, :-1], foretold[:, -1]
        return v, b

    @property
    def _item_columns(self) -> list[str]:
        return [self._ids["item"], *self._attributes["item"].names]

    # ------------------------------------------------------------------ state

    def state(self) -> State:
        """All that was learnt; equal states give equal bytes."""
        state: State = {f"beliefs.{name}": a for name, a in self._beliefs.state().items()}
        for side, attributes in self._attributes.items():
            state[f"attributes.{side}"] = attributes.state()
        if self._factors is not None:
            state["items"] = msgspec.json.encode(list(self._items))
            state |= {f"factors.{name}": a.copy() for name, a in self._factors.state().items()}
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for one made with the same arguments."""
        parts = {
            prefix: {
                name.removeprefix(prefix): value
                for name, value in state.items()
                if name.startswith(prefix)
            }
            for prefix in ("beliefs.", "factors.")
        }
        self._beliefs.load_state(parts["beliefs."])  # type: ignore[arg-type]  # arrays of its own
        for side, attributes in self._attributes.items():
            attributes.load_state(bytes(state[f"attributes.{side}"]))
        self._factors, self._items = None, {}
        if parts["factors."]:
            self._factors = Factors.from_state(parts["factors."])  # type: ignore[arg-type]
            ids = msgspec.json.decode(bytes(state["items"]), type=list[str])
            self._items = {text: row for row, text in enumerate(ids)}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows of a warm-up: the users' ids and attributes by code, and the rows themselves."""

    ids: list[str]
    user: IntArray
    item: IntArray
    ts: IntArray
    closed_ts: IntArray
    labels: npt.NDArray[np.float64]
    attributes: npt.NDArray[np.float64]
    place: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.user)

    def of(self, mask: npt.NDArray[np.bool_]) -> _Rows:
        """Those where the mask is true, with their places."""
        return replace(self, place=np.arange(len(self))).part(mask)

    def part(self, index: slice | npt.NDArray[np.bool_]) -> _Rows:
        return replace(
            self,
            user=self.user[index],
            item=self.item[index],
            ts=self.ts[index],
            closed_ts=self.closed_ts[index],
            labels=self.labels[index],
            place=self.place[index],
        )


def _means(
    beliefs: Beliefs, users: Sequence[str], ts: IntArray, prior: npt.NDArray[np.float64]
) -> FloatArray:
    """Means [n, speeds, p] as of ``ts``; what is forgotten by now is as before any outcome."""
    forgotten = ts < beliefs.horizon
    means = beliefs.as_of(users, np.where(forgotten, _NOW, ts), prior)
    means[forgotten] = prior[forgotten, None, :]
    return means


def _texts(columns: Columns, name: str) -> Sequence[str]:
    return columns[name]  # type: ignore[return-value]  # an id field holds a text a row
