"""Settings section ``store``: where versions live."""

from __future__ import annotations

from pydantic import Field

from settings.section import Section


class ModelStoreSettings(Section):
    """Where versions live."""

    url: str = Field("", description="any fsspec location (s3://…, gs://…); empty: state folder")
