"""Orders records by time, independent of arrival: each waits for the watermark.

Records arrive from several partitions in any interleaving. Processing must not depend on it, or two
runs would end with different models. So a record waits until the watermark of every partition has
passed it; what is complete by then is released sorted by (at, actions before shown, request_id,
item_id, user_id, partition, offset).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from features.samples import Action, Shown
from trainer.arrived import Arrived

# below any event time: a partition that has sent no mark yet
NO_WATERMARK = -1

# at, 0 for an action and 1 for shown, request_id, item_id, user_id, partition, offset
_Key = tuple[int, int, str, str, str, int, int]


class Recent:
    """The newest ``capacity`` record identities, as 64-bit hashes.

    The sink of the job is exactly once; this is a second check. Among a million remembered
    identities a false match has a chance of 5e-14 a record.

    >>> recent = Recent(capacity=2)
    >>> [recent.add("r1", "u", i) for i in ("a", "a", "b", "c", "a")]
    [True, False, True, True, True]
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._order: deque[int] = deque()
        self._known: set[int] = set()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, *texts: str) -> bool:
        """Remember an identity; False if it is remembered already."""
        text = ":".join([*(str(len(t)) for t in texts), *texts])
        digest = int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
        if digest in self._known:
            return False
        if len(self._order) == self._capacity:
            self._known.discard(self._order.popleft())
        self._order.append(digest)
        self._known.add(digest)
        return True

    def state(self) -> NDArray[np.uint64]:
        """The remembered hashes, oldest first: uint64 [n]."""
        return np.array(self._order, dtype=np.uint64)

    def load_state(self, hashes: NDArray[np.uint64]) -> None:
        """The inverse of :meth:`state`; of more than the capacity the newest are kept."""
        self._order = deque(int(h) for h in hashes[-self._capacity :])
        self._known = set(self._order)


class WatermarkOrder:
    """Holds records back until the watermark of every partition has passed them.

    Args:
        partitions: all partitions of the sample topic; one that stays silent holds back the rest.
        remember: how many identities of released records are kept to drop repeated ones.

    Attributes:
        repeated: impressions dropped because one of the same identity was released before;
            repeated actions are dropped too.
        impressions: how many of the records that wait are impressions.
        behind: records that came after a watermark that should have covered them. They are
            processed all the same, but the order then depends on arrival: a fault of the job.
    """

    def __init__(self, partitions: Iterable[int], remember: int) -> None:
        self._watermarks = dict.fromkeys(partitions, NO_WATERMARK)
        self._heap: list[tuple[_Key, Arrived]] = []
        self._released = NO_WATERMARK
        self.recent = Recent(remember)
        self.repeated = 0
        self.behind = 0
        self.impressions = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def watermark(self) -> int:
        """Everything up to here (ms) has arrived, from every partition."""
        return min(self._watermarks.values())

    @property
    def watermarks(self) -> dict[int, int]:
        """The newest mark of each partition."""
        return dict(self._watermarks)

    @property
    def released(self) -> int:
        """The watermark up to which records have been released."""
        return self._released

    def add(self, arrived: Arrived) -> None:
        """Take in a record as it arrives."""
        if arrived.message.at <= self._released:
            self.behind += 1
        self.impressions += isinstance(arrived.message, Shown)
        heapq.heappush(self._heap, (_key(arrived), arrived))

    def advance(self, partition: int, watermark: int) -> None:
        """Take in a mark; one that goes back (a restarted job repeats some) changes nothing."""
        self._watermarks[partition] = max(watermark, self._watermarks[partition])

    def release(self) -> Iterator[Arrived]:
        """Everything that is complete, in order. Take all of it before the next ``add``.

        Between two steps of the iteration :meth:`pending` is what has not been yielded yet.
        """
        watermark = self.watermark
        self._released = max(self._released, watermark)
        while self._heap and self._heap[0][0][0] <= watermark:
            arrived = heapq.heappop(self._heap)[1]
            message = arrived.message
            kind = (message.action,) if isinstance(message, Action) else ()
            self.impressions -= not kind
            if self.recent.add(message.request_id, message.user_id, message.item_id, *kind):
                yield arrived
            else:
                self.repeated += not kind

    def pending(self) -> list[Arrived]:
        """What waits, in order."""
        return [arrived for _, arrived in sorted(self._heap, key=_key_of)]

    def restore(
        self, watermarks: dict[int, int], released: int, pending: Iterable[Arrived]
    ) -> None:
        """Put back what a checkpoint kept; partitions that are new since then have no mark yet."""
        self._watermarks.update(watermarks)
        self._released = released
        self._heap = [(_key(arrived), arrived) for arrived in pending]
        self.impressions = sum(isinstance(arrived.message, Shown) for _, arrived in self._heap)
        heapq.heapify(self._heap)


def _key(arrived: Arrived) -> _Key:
    m = arrived.message
    kind = 0 if isinstance(m, Action) else 1
    return m.at, kind, m.request_id, m.item_id, m.user_id, arrived.partition, arrived.offset


def _key_of(entry: tuple[_Key, Arrived]) -> _Key:
    return entry[0]
