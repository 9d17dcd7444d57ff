"""Settings section ``serving``: the HTTP server."""

from __future__ import annotations

from pydantic import Field

from settings.section import Section


class ServingSettings(Section):
    """The HTTP server."""

    host: str = "127.0.0.1"
    port: int = 18080
    channels: tuple[str, ...] = ("champion", "frozen")
    max_candidates: int = Field(100_000, ge=1)
    experiment: str = Field("", description="path of the experiment file; empty: all to champion")
    min_auc_ratio: float = Field(
        0.97,
        description="quality gate: a version whose window AUC is below this share of the"
        " one that serves is refused",
    )
    features_logged_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the rankings whose impressions carry the user features that were"
        " read, as context.features: what served and trained values are compared by",
    )
