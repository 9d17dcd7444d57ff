"""What every section of the settings has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings: immutable, and a name that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
