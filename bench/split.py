"""Features of a random split, without the leak and with it.

Mean outcomes of users and items are strong features, and easy to get wrong: a mean over data that
holds the row itself reveals its label. Protocols:

- ``leak-free``: a training row gets means over the training rows of the other nine folds, a test
  row means over all training rows. No test label enters any feature.
- ``leaky``: the published protocol (of the reference code): a row gets means over its own part,
  itself
  included, so test rows read test labels. Only for comparison with published figures.

The leak-free protocol adds features: how many rows a mean is over, how a user differs from the
means of its items, and the same by each value of the items' multi-valued fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from features.declaration import ENTITIES, Declaration, Entity
from features.log_arrays import LogArrays
from inttower.core.contract import Columns
from inttower.core.spec import FeatureSpec, Field

Rows = NDArray[np.int64]
Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]

Static = str | tuple[str, ...]
_Coded = tuple[Entity, list[str], NDArray[np.int32]]

ProtocolName = Literal["leak-free", "leaky"]
PROTOCOLS: tuple[ProtocolName, ...] = get_args(ProtocolName)

# the user's and the item's vector by value of the items' multi-valued field
TASTES = ("user_tastes", "item_values")

_FOLDS = 10
# weight of the base rate in a smoothed mean, in rows
_STRENGTH = 5.0


@dataclass(frozen=True, slots=True)
class Split:
    """Rows of a random 80/20 split.

    Attributes:
        train: int64 [n], in random order.
        test: int64 [m].
        fold: int64 [n], the fold of each training row.
    """

    train: Rows
    test: Rows
    fold: NDArray[np.int64]

    @classmethod
    def random(cls, count: int, seed: int) -> Split:
        """Split ``count`` rows."""
        order = np.random.default_rng(seed).permutation(count)
        cut = count * 4 // 5
        return cls(order[:cut], order[cut:], np.arange(cut) % _FOLDS)


@dataclass(frozen=True, slots=True)
class Known:
    """Mean outcomes over some rows, by user and item.

    Attributes:
        users: float64 [users, k], the numbers of each user.
        items: float64 [items, k].
        tastes: float64 [users, g], mean difference of each user by value of the multi field; g
            may be 0.
    """

    users: Floats
    items: Floats
    tastes: Floats


class SplitData:
    """The rows of a split as a model reads them.

    Args:
        declaration: of the static fields.
        log: the rows; times are not used.
        protocol: see the module.

    Attributes:
        spec: ids, static fields, and the numbers described in the module.
    """

    def __init__(self, declaration: Declaration, log: LogArrays, protocol: ProtocolName) -> None:
        self._declaration = declaration
        self._log = log
        self._protocol = protocol
        self._statics = {e: _statics(declaration, log, e) for e in ENTITIES}
        self._values = self._multi_hot() if protocol == "leak-free" else np.zeros((0, 0))
        fields: list[Field] = []
        for side in ENTITIES:
            fields.append(Field(f"{side}_id", side, "sparse", is_id=True))
            statics = declaration.statics_of(side)
            fields += [Field(f.name, side, f.kind) for f in statics if f.kind != "dense"]
            fields += [Field(name, side, "dense") for name in self._names(side)]
        if width := self._values.shape[1]:
            fields += [
                Field(name, side, "dense", width=width)
                for side, name in zip(ENTITIES, TASTES, strict=True)
            ]
        self.spec = FeatureSpec(tuple(fields))

    def _names(self, side: Entity) -> list[str]:
        if self._protocol == "leaky":
            return [f"{side}_mean"]
        return [f"{side}_{name}" for name in ("logit", "log_count", "residual")]

    def _multi_hot(self) -> Floats:
        """float64 [items, g], 1 where the item's first multi-valued field has the value."""
        multi = [f.name for f in self._declaration.statics_of("item") if f.kind == "multi"]
        if not multi:
            return np.zeros((len(self._log.item_ids), 0))
        sets = self._statics["item"][multi[0]]
        values = sorted({value for row in sets for value in row})
        place = {value: k for k, value in enumerate(values)}
        hot = np.zeros((len(sets), len(values)))
        for item, row in enumerate(sets):
            hot[item, [place[value] for value in row]] = 1.0
        return hot

    def known(self, rows: Rows, labels: Labels) -> Known:
        """Means of users and items over these rows and their labels [rows]."""
        shown = self._log.impressions
        users, items, y = shown.users[rows], shown.items[rows], labels.astype(np.float64)
        user_count = len(self._log.user_ids)
        by_user = _Sums.of(users, y, user_count)
        by_item = _Sums.of(items, y, len(self._log.item_ids))
        rate = float(y.mean()) if len(y) else 0.5
        if self._protocol == "leaky":
            means = by_user.mean(rate, 0.0)[:, None], by_item.mean(rate, 0.0)[:, None]
            return Known(*means, np.zeros((user_count, 0)))
        user_mean, item_mean = (s.mean(rate, _STRENGTH) for s in (by_user, by_item))
        odd_user = y - item_mean[items]
        residuals = (
            _Sums.of(users, odd_user, user_count).mean(0.0, _STRENGTH),
            _Sums.of(items, y - user_mean[users], len(self._log.item_ids)).mean(0.0, _STRENGTH),
        )
        tastes = np.zeros((user_count, self._values.shape[1]))
        for k, has in enumerate(self._values.T):
            some = has[items] > 0
            tastes[:, k] = _Sums.of(users[some], odd_user[some], user_count).mean(0.0, _STRENGTH)
        return Known(
            np.stack([_logit(user_mean), np.log1p(by_user.count), residuals[0]], 1),
            np.stack([_logit(item_mean), np.log1p(by_item.count), residuals[1]], 1),
            tastes,
        )

    def columns(self, split: Split, labels: Labels) -> tuple[Columns, Columns]:
        """Input of the training rows and of the test rows, in the split's order.

        Args:
            split: which rows.
            labels: uint8, of all rows of the log.
        """
        train, test = split.train, split.test
        if self._protocol == "leaky":
            return (
                self._columns(train, self.known(train, labels[train])),
                self._columns(test, self.known(test, labels[test])),
            )
        numbers: dict[str, NDArray[np.float32]] = {}
        for fold in range(_FOLDS):
            mine, others = split.fold == fold, train[split.fold != fold]
            known = self.known(others, labels[others])
            for name, values in self._numbers(train[mine], known).items():
                whole = numbers.setdefault(
                    name, np.empty((len(train), *values.shape[1:]), np.float32)
                )
                whole[mine] = values
        known = self.known(train, labels[train])
        return {**self._texts(train), **numbers}, self._columns(test, known)

    def _columns(self, rows: Rows, known: Known) -> Columns:
        return {**self._texts(rows), **self._numbers(rows, known)}

    def _texts(self, rows: Rows) -> Columns:
        texts: dict[str, list[str] | list[Static]] = {}
        for side, ids, codes in self._sides(rows):
            texts[f"{side}_id"] = [ids[code] for code in codes.tolist()]
            for name, values in self._statics[side].items():
                texts[name] = [values[code] for code in codes.tolist()]
        return texts

    def _numbers(self, rows: Rows, known: Known) -> dict[str, NDArray[np.float32]]:
        numbers = {}
        (_, _, users), (_, _, items) = sides = self._sides(rows)
        for (side, _, codes), table in zip(sides, (known.users, known.items), strict=True):
            for k, name in enumerate(self._names(side)):
                numbers[name] = table[codes, k].astype(np.float32)
        if self._values.shape[1]:
            numbers[TASTES[0]] = known.tastes[users].astype(np.float32)
            numbers[TASTES[1]] = self._values[items].astype(np.float32)
        return numbers

    def _sides(self, rows: Rows) -> tuple[_Coded, _Coded]:
        """Side, texts by code, and the rows' codes."""
        shown, log = self._log.impressions, self._log
        return ("user", log.user_ids, shown.users[rows]), ("item", log.item_ids, shown.items[rows])


def _statics(declaration: Declaration, log: LogArrays, entity: Entity) -> dict[str, list[Static]]:
    """Static fields by name, each a list by code."""
    rows = log.catalogue.rows(entity, log.user_ids if entity == "user" else log.item_ids)
    return {
        f.name: [cast(Static, row[k]) for row in rows]
        for k, f in enumerate(declaration.statics_of(entity))
        if f.kind != "dense"
    }


@dataclass(frozen=True, slots=True)
class _Sums:
    """How many rows each user (or item) has, and the sum of a value over them."""

    count: Floats
    total: Floats

    @classmethod
    def of(cls, codes: NDArray[np.int32], values: Floats, size: int) -> _Sums:
        return cls(
            np.bincount(codes, minlength=size).astype(np.float64),
            np.bincount(codes, values, minlength=size).astype(np.float64),
        )

    def mean(self, rate: float, strength: float) -> Floats:
        """Smoothed means; ``rate`` for those without rows."""
        weight = self.count + strength
        return np.where(
            weight > 0, (self.total + rate * strength) / np.where(weight > 0, weight, 1.0), rate
        )


def _logit(mean: Floats) -> Floats:
    inside = np.clip(mean, 1e-6, 1 - 1e-6)
    return np.log(inside / (1 - inside))
