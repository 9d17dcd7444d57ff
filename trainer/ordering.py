"""The order in which samples are learnt, and where a batch ends.

Samples arrive from several partitions with any interleaving. The order in which they are learnt
may depend on none of that, else no two runs would end with the same model. So a sample waits
until every partition has said, by a mark, that nothing which closed earlier follows; what is
complete by then is released sorted by (closed_ts, request_id, item_id). Batches are cut from that
sequence by rules that look at the sequence alone.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

# below any event time: a partition that has sent no mark yet
NO_FRONTIER = -1


class Closed(Protocol):
    """What the order needs to know of a sample."""

    @property
    def closed_ts(self) -> int:
        """Event time (ms) at which its label became final."""

    @property
    def request_id(self) -> str:
        """The request that showed the item."""

    @property
    def user_id(self) -> str:
        """To whom it was shown."""

    @property
    def item_id(self) -> str:
        """What was shown."""


S = TypeVar("S", bound=Closed)

# closed_ts, request_id, item_id, user_id, partition, offset: the last two only make it total
_Key = tuple[int, str, str, str, int, int]


class Recent:
    """The newest ``capacity`` sample identities, as 64-bit hashes.

    A belt beside the braces of the exactly-once sink: among a million remembered identities a
    false match has a chance of 5e-14 a sample.

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

    def add(self, request_id: str, user_id: str, item_id: str) -> bool:
        """Remember an identity; False if it is remembered already."""
        text = f"{len(request_id)}:{len(user_id)}:{request_id}{user_id}{item_id}"
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


class FrontierOrder(Generic[S]):
    """Holds samples back until every partition is past them, then yields them in order.

    Args:
        partitions: all partitions of the sample topic; one that stays silent holds back the rest.
        remember: how many identities of released samples are kept to drop repeated ones.

    Attributes:
        repeated: samples dropped because one of the same identity was released before.
        behind: samples that came after a frontier that should have covered them. They are
            learnt all the same, but the sequence then depends on arrival: the job broke its word.
    """

    def __init__(self, partitions: Iterable[int], remember: int) -> None:
        self._frontiers = dict.fromkeys(partitions, NO_FRONTIER)
        self._heap: list[tuple[_Key, S]] = []
        self._released = NO_FRONTIER
        self.recent = Recent(remember)
        self.repeated = 0
        self.behind = 0

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def frontier(self) -> int:
        """Everything that closed up to here has arrived, from every partition."""
        return min(self._frontiers.values())

    @property
    def frontiers(self) -> dict[int, int]:
        """The newest mark of each partition."""
        return dict(self._frontiers)

    def add(self, partition: int, offset: int, sample: S) -> None:
        """Take in a sample as it arrives."""
        if sample.closed_ts <= self._released:
            self.behind += 1
        heapq.heappush(self._heap, (_key(sample, partition, offset), sample))

    def advance(self, partition: int, frontier: int) -> None:
        """Take in a mark; one that goes back (a restarted job repeats some) changes nothing."""
        self._frontiers[partition] = max(frontier, self._frontiers[partition])

    def release(self) -> Iterator[S]:
        """Everything that is complete, in order. Take all of it before the next ``add``.

        Between two steps of the iteration :meth:`pending` is what has not been yielded yet.
        """
        frontier = self.frontier
        self._released = max(self._released, frontier)
        while self._heap and self._heap[0][0][0] <= frontier:
            _, sample = heapq.heappop(self._heap)
            if self.recent.add(sample.request_id, sample.user_id, sample.item_id):
                yield sample
            else:
                self.repeated += 1

    def pending(self) -> list[tuple[int, int, S]]:
        """What waits, as (partition, offset, sample), in order."""
        return [(key[4], key[5], sample) for key, sample in sorted(self._heap, key=_key_of)]

    def restore(
        self, frontiers: dict[int, int], released: int, pending: Iterable[tuple[int, int, S]]
    ) -> None:
        """Put back what a checkpoint kept; partitions that are new since then have no mark yet."""
        self._frontiers.update(frontiers)
        self._released = released
        self._heap = [
            (_key(sample, partition, offset), sample) for partition, offset, sample in pending
        ]
        heapq.heapify(self._heap)

    @property
    def released(self) -> int:
        """The frontier up to which samples have been released."""
        return self._released


def _key(sample: Closed, partition: int, offset: int) -> _Key:
    return (
        sample.closed_ts,
        sample.request_id,
        sample.item_id,
        sample.user_id,
        partition,
        offset,
    )


def _key_of(entry: tuple[_Key, S]) -> _Key:
    return entry[0]


class Batcher(Generic[S]):
    """Cuts the ordered sequence into batches.

    A batch ends when it has ``limit`` samples, and where the bucket of event time
    ``closed_ts // span_ms`` changes. Which samples share a batch therefore depends on the sequence
    alone, never on when they arrived.

    Args:
        limit: samples of a batch at most.
        span_ms: width of a bucket; None: only ``limit`` ends a batch (the last samples of a
            log then wait for more).
        span_from_ms: what closed before is one bucket, whatever the span.
    """

    def __init__(self, limit: int, span_ms: int | None, span_from_ms: int = 0) -> None:
        self._limit = limit
        self._span_ms = span_ms
        self._span_from_ms = span_from_ms
        self._open: list[S] = []
        self._bucket = 0

    @property
    def open(self) -> list[S]:
        """The samples of the batch that has not ended yet."""
        return list(self._open)

    def _bucket_of(self, sample: S) -> int:
        return self._bucket_at(sample.closed_ts)

    def _bucket_at(self, ts: int) -> int:
        if self._span_ms is None or ts < self._span_from_ms:
            return -1
        return ts // self._span_ms

    def add(self, sample: S) -> Iterator[list[S]]:
        """Take the next sample of the sequence; yields the batches that end by it."""
        bucket = self._bucket_of(sample)
        if self._open and bucket != self._bucket:
            yield self._take()
        self._bucket = bucket
        self._open.append(sample)
        if len(self._open) >= self._limit:
            yield self._take()

    def close(self, frontier: int) -> Iterator[list[S]]:
        """End the open batch if no sample can join its bucket any more, given the frontier."""
        # the next sample closes behind the frontier
        if self._open and self._bucket_at(frontier + 1) > self._bucket:
            yield self._take()

    def restore(self, samples: list[S]) -> None:
        """Put back what :attr:`open` gave."""
        self._open = list(samples)
        self._bucket = self._bucket_of(samples[-1]) if samples else 0

    def _take(self) -> list[S]:
        batch, self._open = self._open, []
        return batch
