"""Settings section ``store``: where the versions of the models are kept."""

from __future__ import annotations

from pydantic import Field

from settings.section import Section


class ModelStoreSettings(Section):
    """Where the versions of the models are kept."""

    url: str = Field("", description="any fsspec location (s3://…, gs://…); empty: state folder")
