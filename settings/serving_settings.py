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
        gt=0,
        le=1,
        description="quality gate: a version is refused whose window AUC is below this share of"
        " what the simple models reach on the same rows, or an earlier version reached",
    )
    max_logloss_ratio: float = Field(
        1.05, ge=1, description="quality gate: the same for log loss, which is to be low"
    )
    max_calibration: float = Field(
        1.5,
        gt=1,
        description="quality gate: predicted over observed clicks, and its inverse, at most; the"
        " sampling error of the observed ones comes on top",
    )
    min_auc: float = Field(
        0.5, ge=0, le=1, description="quality gate: a window AUC significantly below is refused"
    )
    features_logged_share: float = Field(
        0.01,
        ge=0,
        le=1,
        description="share of the rankings that are logged with the user features that were read:"
        " what served and trained values are compared by",
    )
    recent_ranked_items: int = Field(
        200_000,
        ge=0,
        description="items of the newest rankings that are remembered, about 130 bytes each: what"
        " an impression that is posted without variant, version and score is filled in from",
    )
