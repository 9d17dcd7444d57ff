"""Settings section ``feast``: the feature store."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from settings.section import Section


class FeastSettings(Section):
    """The feature store."""

    online_store: Literal["sqlite", "redis"] = Field(
        "sqlite", description="where the newest feature rows are: a file, or a Redis server"
    )
    redis: str = Field(
        "localhost:6379", description="connection string of Redis, if that is the online store"
    )
    batch_rows: int = Field(2000, ge=1, description="most rows that one transaction writes")
