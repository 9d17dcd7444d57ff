"""Settings section ``feast``: the feature store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from settings.section import Section


class FeastSettings(Section):
    """The feature store."""

    online_store: Literal["sqlite", "redis"] = "sqlite"
    redis: str = Field("localhost:6379", description="connection string, used with redis")
    batch_rows: int = Field(2000, ge=1, description="rows written at a time at most")
