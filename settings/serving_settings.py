"""Settings section ``serving``: the HTTP server."""

from __future__ import annotations

from pydantic import Field

from settings.section import Section


class ServingSettings(Section):
    """The HTTP server."""

    host: str = Field("127.0.0.1", description="address that the server listens on")
    port: int = Field(18080, description="port of the HTTP interface, metrics included")
    channels: tuple[str, ...] = Field(
        ("champion", "frozen"), description="channels that this server loads and serves"
    )
    max_candidates: int = Field(100_000, ge=1, description="most candidates of one ranking")
    experiment: str = Field(
        "", description="path of the experiment's file; empty: every user gets champion"
    )
    min_auc_ratio: float = Field(
        0.97,
        description="quality gate: a version whose window AUC is below this share of the"
        " one that serves is refused",
    )
    features_logged_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the rankings that log the user features they read, as"
        " context.features, so that served and trained values can be compared",
    )
