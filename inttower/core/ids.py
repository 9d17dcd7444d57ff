"""Open-ended text ids: which slot of a table an id has, who gets one, and who must go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from inttower.core.batch import IntArray
from inttower.errors import SpecError

UNKNOWN = 0
# Finding the oldest is a pass over all: so a full table lets go of this part of itself at once, and
# looks for lapsed ids this often in the time after which they lapse.
_PARTS = 16


@dataclass(frozen=True, slots=True)
class Change:
    """What an :meth:`IdTable.admit` did.

    Attributes:
        admitted: slots that now belong to new ids, int64.
        expired: slots whose ids were let go (some may be among the admitted), int64.
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

    The clock is the number of sightings so far, so that a table depends on nothing but what it
    was shown. Slots of ids that were let go are given to the next new ones, lowest first.

    Args:
        limit: ids at most; when full, those not seen for longest go.
        admit_after: an id gets its slot at its n-th sighting. Those before count as unknown.
        expire_after: an id not seen during the last so many sightings goes, give or take a 16th;
            None: never.

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
        self._text: list[str] = [""]  # by slot; the unknown one and free ones hold no id
        self._seen: IntArray = np.zeros(64, np.int64)  # clock at the last sighting, by slot
        self._free: list[int] = []  # descending: the lowest is popped
        self._pending: dict[str, int] = {}  # sightings of ids that have no slot yet
        self._clock = 0
        self._swept = 0  # clock when lapsed ids were last looked for

    def __len__(self) -> int:
        return len(self._slot)

    def __contains__(self, text: str) -> bool:
        return text in self._slot

    @property
    def slots_used(self) -> int:
        """Slots ever given out and the unknown one: an array by slot needs this length."""
        return len(self._text)

    @property
    def pending(self) -> int:
        """Ids seen that have no slot yet."""
        return len(self._pending)

    def ids(self) -> list[str]:
        """The ids that have a slot, in the order of their slots."""
        return sorted(self._slot, key=self._slot.__getitem__)

    def slots(self, texts: Iterable[str], missing: int = UNKNOWN) -> IntArray:
        """The slot of each id, ``missing`` where it has none; int64 [n]. Changes nothing."""
        get = self._slot.get
        return np.array([get(text, missing) for text in texts], np.int64)

    def admit(self, texts: Sequence[str]) -> Change:
        """Count sightings, give slots to the ids that have earned one, expire others.

        All of ``texts`` counts before any slot is given: ids that are among them do not expire.
        If they alone are more than the limit, the last new ones stay unknown.
        """
        slot = self._slot
        sighted = Counter(texts)
        now = self._clock = self._clock + len(texts)
        here = np.array([slot[t] for t in sighted if t in slot], np.int64)
        self._seen[here] = now
        newcomers = [t for t in sighted if t not in slot]
        if self.admit_after > 1:
            newcomers = [t for t in newcomers if self._earned(t, sighted[t])]
        expired = self._make_room(len(newcomers), now)
        newcomers = newcomers[: self.limit - len(slot)]
        admitted = np.array([self._place(t, now) for t in newcomers], np.int64)
        return Change(admitted, expired)

    def _earned(self, text: str, sightings: int) -> bool:
        count = self._pending.pop(text, 0) + sightings
        if count >= self.admit_after:
            return True
        self._pending[text] = count  # behind all others: the first is the longest unseen
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

    def _make_room(self, wanted: int, now: int) -> IntArray:
        lapsed = self.expire_after is not None and now - self._swept >= max(
            1, self.expire_after // _PARTS
        )
        short = wanted - (self.limit - len(self._slot))
        if not lapsed and (short <= 0 or not wanted):
            return np.zeros(0, np.int64)
        used = np.sort(np.fromiter(self._slot.values(), np.int64, len(self._slot)))
        seen = self._seen[used]
        go = np.zeros(len(used), np.bool_)
        if lapsed and self.expire_after is not None:
            self._swept = now
            go = seen < now - self.expire_after
            short -= int(go.sum())
        if wanted and short > 0:
            oldest = np.flatnonzero((seen < now) & ~go)
            # the longest unseen first, of equals the lower slot
            oldest = oldest[np.argsort(seen[oldest], kind="stable")]
            go[oldest[: max(short, self.limit // _PARTS)]] = True
        gone = used[go]
        for slot in gone.tolist():
            del self._slot[self._text[slot]]
            self._text[slot] = ""
        self._free = sorted([*self._free, *gone.tolist()], reverse=True)
        return gone

    def state(self) -> tuple[bytes, IntArray]:
        """All of it: texts and order as bytes, times of the last sightings by slot."""
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
