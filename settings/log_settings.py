"""Settings section ``log``: which declaration of columns and features is used."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from settings.section import Section


class LogSettings(Section):
    """Which declaration of columns and features is used."""

    file: str = Field(
        "",
        description="the log's own TOML, or the name of one that comes with headrace; it gives the"
        " features, the attribution window and the kinds of action",
    )
    path: Path | None = Field(
        None, description="the folder that the TOML's files lie in; none: that of the TOML"
    )
    name: str = Field(
        "movielens", description="a declaration in features/, where there is no log.file"
    )
    attribution_ms: int = Field(
        500,
        ge=1,
        description="attribution window: how long after its impression a click still counts;"
        " MovieLens: a rating is its own click and times are whole seconds, so half a second keeps"
        " seconds apart",
    )

    @property
    def closing_delay_ms(self) -> int:
        """How long after its impression an unclicked sample is known to be one, in event time.

        Flink's interval join gives up on a match up to half a window late, so that is what the
        closing time of a negative says; a positive closes with its click.

        >>> LogSettings(attribution_ms=500).closing_delay_ms
        752
        """
        return self.attribution_ms + self.attribution_ms // 2 + 2
