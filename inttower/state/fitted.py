"""One fit of item factors, with the users' beliefs over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from inttower.core.batch import FloatArray, IntArray
from inttower.core.contract import Columns, Labels, State
from inttower.core.spec import Side
from inttower.state.attributes import Attributes
from inttower.state.belief import Beliefs
from inttower.state.factors import Factors

Floats = npt.NDArray[np.float64]

NOW = int(np.iinfo(np.int64).max)


@dataclass
class Fitted:
    """Factors and beliefs; empty before the first fit.

    Attributes:
        ids: names of the id fields.
        attributes: codes of the static fields of both sides, as the fit chose them.
        beliefs: the users' beliefs.
        factors: the items' factors; None before the first fit.
        items: row of each item in the factors.
    """

    ids: Mapping[Side, str]
    attributes: dict[Side, Attributes]
    beliefs: Beliefs
    factors: Factors | None = None
    items: dict[str, int] = field(default_factory=dict)

    def learn(self, columns: Columns, closed_ts: IntArray, labels: Labels) -> None:
        """Update beliefs with outcomes, in the order in which they closed."""
        v, b = self.item_vectors(columns)
        prior = self.prior(columns)
        self.beliefs.learn(
            self.texts(columns, "user"), closed_ts, labels=labels, v=v, b=b, prior=prior
        )

    def means(self, columns: Columns, ts: IntArray) -> FloatArray:
        """Means [n, speeds, p] as of ``ts`` [n]; see :func:`means`."""
        users = self.texts(columns, "user")
        return means(self.beliefs, users, np.asarray(ts, np.int64), self.prior(columns))

    def variances(self, user_id: str, columns: Columns) -> FloatArray:
        """Variance of the logit of the columns' items for one user, as of now: [N, speeds]."""
        return self.beliefs.variances(user_id, self.item_vectors(columns)[0])

    def prior(self, columns: Columns) -> Floats:
        """The users' prior means, before any outcome, [n, p]."""
        attributes = self.attributes["user"].of(columns)
        if self.factors is None:
            return np.zeros((len(attributes), self.beliefs.config.size))
        return self.factors.user_prior(attributes)

    def item_vectors(self, columns: Columns) -> tuple[Floats, Floats]:
        """Vectors [n, p] and biases [n]; for new items predicted from their attributes."""
        texts = self.texts(columns, "item")
        if self.factors is None:
            return np.zeros((len(texts), self.beliefs.config.size)), np.zeros(len(texts))
        row = np.array([self.items.get(text, -1) for text in texts], np.int64)
        v, b = self.factors.v[row], self.factors.b[row]
        new = np.flatnonzero(row < 0)
        if len(new):
            names = (self.ids["item"], *self.attributes["item"].names)
            some = {name: [columns[name][at] for at in new] for name in names}
            foretold = self.attributes["item"].of(some) @ self.factors.item_weights
            v[new], b[new] = foretold[:, :-1], foretold[:, -1]
        return v, b

    def texts(self, columns: Columns, side: Side) -> Sequence[str]:
        """The ids of the rows."""
        return columns[self.ids[side]]  # type: ignore[return-value]  # an id field holds texts

    def state(self) -> State:
        """Everything learnt; equal fits give equal bytes."""
        state: State = {f"beliefs.{name}": a for name, a in self.beliefs.state().items()}
        for side, attributes in self.attributes.items():
            state[f"attributes.{side}"] = attributes.state()
        if self.factors is not None:
            state["items"] = msgspec.json.encode(list(self.items))
            state |= {f"factors.{name}": a.copy() for name, a in self.factors.state().items()}
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`, for one made with the same arguments."""
        self.beliefs.load_state(under("beliefs.", state))  # type: ignore[arg-type]  # its own
        for side, attributes in self.attributes.items():
            attributes.load_state(bytes(state[f"attributes.{side}"]))
        self.factors, self.items = None, {}
        factors = under("factors.", state)
        if factors:
            self.factors = Factors.from_state(factors)  # type: ignore[arg-type]  # its own
            ids = msgspec.json.decode(bytes(state["items"]), type=list[str])
            self.items = {text: row for row, text in enumerate(ids)}


def under(
    prefix: str, state: Mapping[str, npt.NDArray[np.generic] | bytes]
) -> dict[str, npt.NDArray[np.generic] | bytes]:
    """The entries whose names have this prefix, without it.

    >>> under("a.", {"a.b": b"1", "b.b": b"2"})
    {'b': b'1'}
    """
    return {
        name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)
    }


def means(beliefs: Beliefs, users: Sequence[str], ts: IntArray, prior: Floats) -> FloatArray:
    """Means [n, speeds, p] as of ``ts``; before the window, the prior means."""
    forgotten = ts < beliefs.horizon
    found = beliefs.as_of(users, np.where(forgotten, NOW, ts), prior)
    found[forgotten] = prior[forgotten, None, :]
    return found
