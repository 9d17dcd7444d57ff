"""One impression of an experiment, as the statistics read it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exposure:
    """One impression of an experiment whose attribution window has passed.

    Attributes:
        score: the probability that the server logged; None if it logged none.
        label: 1 if clicked, else 0.
        propensity: the variant's share when it was shown; None if it was not logged.
        ts: event time of the impression, ms.
    """

    user_id: str
    variant: str
    score: float | None
    label: int
    propensity: float | None = None
    ts: int = 0
