"""A bounded memory of recent rankings: fills in impressions that are posted without scores."""

from __future__ import annotations

from collections import OrderedDict

from streaming.events import Ranking


class RecentRankings:
    """A bounded memory of rankings by request id; the oldest go first.

    Args:
        capacity: items of all rankings together at most.

    >>> from streaming.events import RankedItem
    >>> recent = RecentRankings(capacity=3)
    >>> for name in "ab":
    ...     items = [RankedItem("1", 0.5), RankedItem("2", 0.25)]
    ...     recent.add(Ranking(request_id=name, user_id="u", ts=5, model="m", items=items))
    >>> recent.find("a") is None, recent.find("b") is None
    (True, False)
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._size = 0
        self._rankings: OrderedDict[str, Ranking] = OrderedDict()

    def add(self, ranking: Ranking) -> None:
        """Keep a ranking; one of the same request id is replaced."""
        before = self._rankings.pop(ranking.request_id, None)
        self._size += len(ranking.items) - (len(before.items) if before else 0)
        self._rankings[ranking.request_id] = ranking
        while self._size > self._capacity:
            _, oldest = self._rankings.popitem(last=False)
            self._size -= len(oldest.items)

    def find(self, request_id: str) -> Ranking | None:
        """The ranking of a request; None: it was made elsewhere, or too long ago."""
        return self._rankings.get(request_id)
