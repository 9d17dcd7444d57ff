"""Base class of every section of the settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings: immutable; an unknown name is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)
