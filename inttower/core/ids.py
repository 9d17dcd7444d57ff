"""The id table: which slot an open-ended text id has, when it is admitted, when it is evicted.

An id is admitted at its n-th sighting. It is evicted when the table is full and it has not been
seen for longest, or when it has not been seen during a given number of sightings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from inttower.core.batch import IntArray
from inttower.errors import SpecError

UNKNOWN = 0
# Finding the oldest ids is a pass over all of them. So a full table evicts a 16th of its ids at
# once, and ids that have expired are looked for 16 times during their time to live.
_PARTS = 16


@dataclass(frozen=True, slots=True)
class Change:
    """The slots that one :meth:`IdTable.admit` changed.

    Attributes:
        admitted: slots that now belong to new ids, int64.
        expired: slots whose ids were evicted (some may be among the admitted), int64.
    """

    admitted: IntArray
    expired: IntArray


class _Saved(msgspec.Struct, frozen=True, kw_only=True):
    slots: list[str]
    free: list[int]
    pending: list[tuple[str, int]]
    clock: int
    swept: int


class IdTable:
    """Slots 1, 2, … for ids in the order of their admission; slot 0 is the unknown id.

    The clock counts sightings, so that the table depends on nothing but the ids it was shown. The
    slot of an evicted id goes to the next new one, the lowest slot first.

    Args:
        limit: most ids; a full table evicts those not seen for longest.
        admit_after: an id gets its slot at its n-th sighting. Those before count as unknown.
        expire_after: an id that is not among the last so many sightings is evicted (up to a 16th
            later); None: never.

    >>> table = IdTable(limit=2)
    >>> table.admit(["a", "b", "a"]).admitted
    array([1, 2])
    >>> table.admit(["a", "c"]).expired                  # "b" has not been seen for longest
    array([2])
    >>> table.slots(["a", "b", "c"])
    array([1, 0, 2])
    """

    def __init__(
        self, limit: int = 1_000_000, admit_after: int = 1, expire_after: int | None = None
    ) -> None:
        if limit < 1 or admit_after < 1 or (expire_after is not None and expire_after < 1):
            raise SpecError("an id table's limit, admit_after and expire_after are at least 1")
        self.limit = limit
        self.admit_after = admit_after
        self.expire_after = expire_after
        self._slot: dict[str, int] = {}
        self._text: list[str] = [""]  # by slot; empty for the unknown one and for free ones
        self._seen: IntArray = np.zeros(64, np.int64)  # clock at the last sighting, by slot
        self._free: list[int] = []  # descending, so that pop() gives the lowest
        self._pending: dict[str, int] = {}  # sightings of ids that have no slot yet
        self._clock = 0
        self._swept = 0  # clock at the last search for expired ids

    def __len__(self) -> int:
        return len(self._slot)

    def __contains__(self, text: str) -> bool:
        return text in self._slot

    @property
    def slots_used(self) -> int:
        """Length that an array by slot needs: slots ever used, with the unknown one."""
        return len(self._text)

    @property
    def pending(self) -> int:
        """Ids seen that have no slot yet."""
        return len(self._pending)

    def ids(self) -> list[str]:
        """The ids that have a slot, in the order of their slots."""
        return sorted(self._slot, key=self._slot.__getitem__)

    def texts(self, slots: IntArray) -> list[str]:
        """The ids of these slots; free ones are left out."""
        free = set(self._free)
        return [self._text[slot] for slot in slots.tolist() if slot not in free]

    def slots(self, texts: Iterable[str], missing: int = UNKNOWN) -> IntArray:
        """The slot of each id, ``missing`` where it has none; int64 [n]. Changes nothing."""
        get = self._slot.get
        return np.array([get(text, missing) for text in texts], np.int64)

    def admit(self, texts: Sequence[str]) -> Change:
        """Count sightings, admit ids that have been seen often enough, evict others.

        All of ``texts`` is counted before any slot changes, so none of these ids is evicted. If
        they alone exceed the limit, the last new ones stay unknown.
        """
        slot = self._slot
        sighted = Counter(texts)
        now = self._clock = self._clock + len(texts)
        here = np.array([slot[t] for t in sighted if t in slot], np.int64)
        self._seen[here] = now
        newcomers = [t for t in sighted if t not in slot]
        if self.admit_after > 1:
            newcomers = [t for t in newcomers if self._seen_often_enough(t, sighted[t])]
        expired = self._evict(len(newcomers), now)
        newcomers = newcomers[: self.limit - len(slot)]
        admitted = np.array([self._place(t, now) for t in newcomers], np.int64)
        return Change(admitted, expired)

    def _seen_often_enough(self, text: str, sightings: int) -> bool:
        count = self._pending.pop(text, 0) + sightings
        if count >= self.admit_after:
            return True
        self._pending[text] = count  # moved to the end: the first is the one not seen for longest
        if len(self._pending) > self.limit:
            del self._pending[next(iter(self._pending))]
        return False

    def _place(self, text: str, now: int) -> int:
        if self._free:
            slot = self._free.pop()
            self._text[slot] = text
        else:
            slot = len(self._text)
            self._text.append(text)
            if slot >= len(self._seen):
                self._seen = np.concatenate([self._seen, np.zeros_like(self._seen)])
        self._slot[text] = slot
        self._seen[slot] = now
        return slot

    def _evict(self, wanted: int, now: int) -> IntArray:
        expiry_due = self.expire_after is not None and now - self._swept >= max(
            1, self.expire_after // _PARTS
        )
        short = wanted - (self.limit - len(self._slot))
        if not expiry_due and (short <= 0 or not wanted):
            return np.zeros(0, np.int64)
        used = np.sort(np.fromiter(self._slot.values(), np.int64, len(self._slot)))
        seen = self._seen[used]
        go = np.zeros(len(used), np.bool_)
        if expiry_due and self.expire_after is not None:
            self._swept = now
            go = seen < now - self.expire_after
            short -= int(go.sum())
        if wanted and short > 0:
            oldest = np.flatnonzero((seen < now) & ~go)
            # not seen for longest first; of equals the lower slot
            oldest = oldest[np.argsort(seen[oldest], kind="stable")]
            go[oldest[: max(short, self.limit // _PARTS)]] = True
        gone = used[go]
        for slot in gone.tolist():
            del self._slot[self._text[slot]]
            self._text[slot] = ""
        self._free = sorted([*self._free, *gone.tolist()], reverse=True)
        return gone

    def state(self) -> tuple[bytes, IntArray]:
        """Everything: texts and order as bytes, the clock at each slot's last sighting."""
        saved = _Saved(
            slots=self._text,
            free=self._free,
            pending=list(self._pending.items()),
            clock=self._clock,
            swept=self._swept,
        )
        return msgspec.json.encode(saved), self._seen[: len(self._text)].copy()

    def load_state(self, data: bytes, seen: IntArray) -> None:
        """The inverse of :meth:`state`."""
        saved = msgspec.json.decode(data, type=_Saved)
        self._text = saved.slots
        empty = {UNKNOWN, *saved.free}
        self._slot = {text: i for i, text in enumerate(saved.slots) if i not in empty}
        self._free = saved.free
        self._pending = dict(saved.pending)
        self._clock = saved.clock
        self._swept = saved.swept
        self._seen = np.concatenate([seen, np.zeros(max(64, len(seen)), np.int64)])
