"""The sums of the ledger: how many events became what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Sums:
    """What became of the events.

    Attributes:
        impressions: produced = shown + duplicate + dead_letters + open.
        clicks: produced = actions + features_only + unmatched + repeated + dead_letters + open.
        reasons: dead letters of either topic by reason code.
        overdue: open although their time is over; see the module.
        late: events that arrived later than ``flink.out_of_orderness_ms`` after their time:
            ``events``, and how late they were: ``p50_ms``, ``p95_ms`` (rounded up to a power of
            two) and ``max_ms``.
        rankings: ``written``, and ``without_impression``: those of which nothing was shown.
    """

    impressions: dict[str, int]
    clicks: dict[str, int]
    reasons: dict[str, int]
    overdue: int
    late: dict[str, int]
    rankings: dict[str, int]

    @property
    def balances(self) -> bool:
        """Whether both sums add up and nothing is overdue."""
        return not self.overdue and all(
            sums["produced"] == sum(n for name, n in sums.items() if name != "produced")
            for sums in (self.impressions, self.clicks)
        )

    def to_json(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {
            "impressions": self.impressions,
            "clicks": self.clicks,
            "reasons": self.reasons,
            "overdue": self.overdue,
            "late": self.late,
            "rankings": self.rankings,
            "balances": self.balances,
        }


def quantile_ms(buckets: dict[int, int], share: float, largest: int) -> int:
    """The upper end of the power of two that holds a quantile; 0 without any.

    Args:
        buckets: how many, by the bit length of the time in ms.
        share: 0 to 1.
        largest: no result is above this, ms.

    >>> quantile_ms({11: 1, 14: 1}, 0.5, 9_000), quantile_ms({11: 1, 14: 1}, 0.95, 9_000)
    (2048, 9000)
    """
    wanted = share * sum(buckets.values())
    for bits in sorted(buckets):
        wanted -= buckets[bits]
        if wanted <= 0:
            return int(min(1 << bits, largest))
    return 0
