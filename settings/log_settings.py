"""Settings section ``log``: which declaration of columns and features is used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from settings.section import Section

# the action of an event that names none
DEFAULT_ACTION = "click"
_LONGEST_WAIT_MS = 60_000


class ActionKind(Section):
    """What an action of this kind says about its impression."""

    label: Literal[0, 1] | None = Field(
        None, description="1: positive, 0: negative (hide), none: for features only"
    )
    weight: float = Field(1.0, gt=0, description="of the label in training")


class LogSettings(Section):
    """Which declaration of columns and features is used."""

    file: str = Field(
        "",
        description="the log's own TOML, or the name of one that comes with headrace; it gives the"
        " features, the attribution window and the kinds of action",
    )
    path: Path | None = Field(
        None, description="the folder of the TOML's files; none: that of the TOML"
    )
    name: str = Field(
        "movielens",
        description="the log's name; without a log.file only movielens, whose features are in"
        " features/logs",
    )
    attribution_ms: int = Field(
        500,
        ge=1,
        description="attribution window: how long after its impression a click still counts;"
        " MovieLens: a rating is its own click and times are whole seconds, so half a second keeps"
        " seconds apart",
    )

    wait_ms: int | None = Field(
        None,
        ge=1,
        description="how long after its impression a sample is learnt; a labelling action that"
        " comes later, within the attribution window, corrects it; none: the attribution window,"
        " a minute at most",
    )
    actions: dict[str, ActionKind] = Field(
        default={DEFAULT_ACTION: ActionKind(label=1)},
        description="the kinds of action; an event that names none is a click, one that names"
        " another kind is a dead letter (unknown_action)",
    )

    @property
    def positives(self) -> frozenset[str]:
        """The kinds of action that make an impression a positive.

        >>> LogSettings().positives
        frozenset({'click'})
        """
        return frozenset(name for name, kind in self.actions.items() if kind.label == 1)

    @property
    def waits_ms(self) -> int:
        """How long after its impression a sample is learnt, in event time.

        >>> LogSettings(attribution_ms=500).waits_ms
        500
        >>> LogSettings(attribution_ms=1_800_000).waits_ms
        60000
        """
        longest = _LONGEST_WAIT_MS if self.wait_ms is None else self.wait_ms
        return min(self.attribution_ms, longest)
