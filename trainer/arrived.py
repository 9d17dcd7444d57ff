"""A shown or action record, with its partition and offset."""

from __future__ import annotations

from typing import NamedTuple

from features.samples import Action, Shown


class Arrived(NamedTuple):
    """A record of the sample topic, its place, and its bytes: what a checkpoint keeps of it."""

    partition: int
    offset: int
    value: bytes
    message: Shown | Action
