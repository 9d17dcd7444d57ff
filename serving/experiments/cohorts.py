"""The first-day cohort: each user counts once, with what it did in its first day.

An open-ended metric keeps adding impressions to users who are already counted, so that two looks do
not differ by new users alone, and a sequential test on it is wrong. Here a user enters when its
first day is over (and the outcome of all of it is known), and never changes again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.experiments.exposure import Exposure

DAY_MS = 86_400_000


@dataclass(slots=True)
class CohortUser:
    """What one user did in its first day.

    Attributes:
        variant: the first one that it saw.
        first_ts: time of its first impression, ms.
        shown: impressions.
        clicked: those with a positive outcome.
        variants: all that it saw, at any time.
    """

    variant: str
    first_ts: int
    shown: int = 0
    clicked: int = 0
    variants: set[str] = field(default_factory=set)


def first_day(
    exposures: Iterable[Exposure], closed_until_ms: int, day_ms: int = DAY_MS
) -> list[CohortUser]:
    """The users whose first day is over, in the order in which they came.

    Args:
        exposures: closed impressions, in any order.
        closed_until_ms: the outcomes of all impressions before this event time are known.
        day_ms: length of the first day.

    >>> shown = [Exposure("u", "a", None, label, ts=ts) for ts, label in ((0, 1), (5, 0), (20, 1))]
    >>> [(u.shown, u.clicked) for u in first_day(shown, closed_until_ms=30, day_ms=10)]
    [(2, 1)]
    """
    users: dict[str, CohortUser] = {}
    for one in sorted(exposures, key=lambda e: (e.ts, e.user_id)):
        user = users.setdefault(one.user_id, CohortUser(one.variant, one.ts))
        user.variants.add(one.variant)
        if one.ts < user.first_ts + day_ms and one.variant == user.variant:
            user.shown += 1
            user.clicked += one.label
    return [user for user in users.values() if user.first_ts + day_ms <= closed_until_ms]
