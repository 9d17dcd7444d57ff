"""The history that item factors are fitted on: outcomes in closing order, with attributes.

It holds the rows of a warm-up, and later the newest rows of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
import numpy.typing as npt

from inttower.core.batch import SIDES, IntArray
from inttower.core.contract import Columns, Labels, State
from inttower.core.spec import Side
from inttower.state.attributes import Attributes, Values
from inttower.state.factors import Outcomes

Codes = npt.NDArray[np.int32]

_COLUMNS = {"user": np.int32, "item": np.int32, "closed_ts": np.int64, "label": np.float32}


@dataclass
class Entities:
    """Users or items: ids in the order of their first appearance, and attributes as text."""

    codes: dict[str, int] = field(default_factory=dict)
    values: list[Values] = field(default_factory=list)

    def coded(self, ids: Sequence[str], columns: Columns, attributes: Attributes) -> Codes:
        """Codes of the ids, int32 [n]; new ones get the next."""
        coded = np.empty(len(ids), np.int32)
        new: list[int] = []
        for at, text in enumerate(ids):
            code = self.codes.get(text)
            if code is None:
                code = self.codes[text] = len(self.codes)
                new.append(at)
            coded[at] = code
        self.values.extend(attributes.values(columns, new))
        return coded

    def keep(self, kept: npt.NDArray[np.generic]) -> None:
        """Keep only these codes; the new code is the place in ``kept``."""
        ids, codes = list(self.codes), kept.tolist()
        self.codes = {ids[code]: place for place, code in enumerate(codes)}
        self.values = [self.values[code] for code in codes]


class OutcomeHistory:
    """Outcomes, oldest first.

    Args:
        ids: names of the id fields of both sides.

    Attributes:
        entities: of both sides; what :meth:`outcomes` has codes of.
    """

    def __init__(self, ids: Mapping[Side, str]) -> None:
        self._ids = ids
        self.entities: dict[Side, Entities] = {side: Entities() for side in SIDES}
        # a chunk for each call, joined when they are read
        self._chunks: dict[str, list[npt.NDArray[np.generic]]] = {
            name: [np.empty(0, dtype)] for name, dtype in _COLUMNS.items()
        }
        self._count = 0

    def __len__(self) -> int:
        """How many outcomes are held."""
        return self._count

    def add(
        self,
        columns: Columns,
        closed_ts: IntArray,
        labels: Labels,
        attributes: Mapping[Side, Attributes],
    ) -> None:
        """Append outcomes.

        Args:
            columns: ids and attributes of both sides, n rows.
            closed_ts: int64 [n], ms.
            labels: 0/1 [n].
            attributes: which columns are attributes.
        """
        for side, entities in self.entities.items():
            ids: Sequence[str] = columns[self._ids[side]]  # type: ignore[assignment]  # ids: texts
            self._chunks[side].append(entities.coded(ids, columns, attributes[side]))
        self._chunks["closed_ts"].append(np.array(closed_ts, np.int64))
        self._chunks["label"].append(np.array(labels, np.float32))
        self._count += len(closed_ts)

    def keep_newest(self, count: int) -> None:
        """Drop older outcomes, and users and items that then have none."""
        gone = max(0, len(self) - count)
        if not gone:
            return
        for name in _COLUMNS:
            self._chunks[name] = [self._whole(name)[gone:]]
        for side, entities in self.entities.items():
            kept, codes = np.unique(self._whole(side), return_inverse=True)
            entities.keep(kept)
            self._chunks[side] = [codes.astype(np.int32)]
        self._count -= gone

    def outcomes(self) -> Outcomes:
        """All outcomes, in codes."""
        user, item, label = (self._whole(name) for name in ("user", "item", "label"))
        return Outcomes(user.astype(np.int64), item.astype(np.int64), label.astype(np.float64))

    def closed_ts(self) -> IntArray:
        """When each closed, ms, int64 [n]."""
        return self._whole("closed_ts").astype(np.int64)

    def _whole(self, name: str) -> npt.NDArray[np.generic]:
        chunks = self._chunks[name]
        if len(chunks) > 1:
            chunks[:] = [np.concatenate(chunks)]
        return chunks[0]

    def state(self) -> State:
        """All of it, as plain arrays and JSON."""
        state: State = {name: self._whole(name) for name in _COLUMNS}
        for side, entities in self.entities.items():
            state[f"{side}s"] = msgspec.json.encode((list(entities.codes), entities.values))
        return state

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`."""
        self._chunks = {name: [np.array(state[name])] for name in _COLUMNS}
        self._count = len(self._whole("label"))
        for side in SIDES:
            ids, values = msgspec.json.decode(
                bytes(state[f"{side}s"]), type=tuple[list[str], list[Values]]
            )
            self.entities[side] = Entities({text: k for k, text in enumerate(ids)}, values)


@dataclass(frozen=True, slots=True)
class OutcomeRows:
    """Rows of outcomes: the users' ids and attributes by code, and the rows themselves."""

    ids: list[str]
    user: IntArray
    item: IntArray
    ts: IntArray
    closed_ts: IntArray
    labels: npt.NDArray[np.float64]
    attributes: npt.NDArray[np.float64]
    item_attributes: npt.NDArray[np.float64]
    place: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.user)

    def of(self, mask: npt.NDArray[np.bool_]) -> OutcomeRows:
        """Those where the mask is true, with their places."""
        return replace(self, place=np.arange(len(self))).part(mask)

    def part(self, index: slice | npt.NDArray[np.bool_]) -> OutcomeRows:
        """Some of them."""
        return replace(
            self,
            user=self.user[index],
            item=self.item[index],
            ts=self.ts[index],
            closed_ts=self.closed_ts[index],
            labels=self.labels[index],
            place=self.place[index],
        )
