"""A sample together with the record that brought it."""

from __future__ import annotations

from typing import NamedTuple

from features.samples import Sample


class Arrived(NamedTuple):
    """A sample, its place on the topic, and its bytes: what a checkpoint keeps while it waits."""

    partition: int
    offset: int
    value: bytes
    sample: Sample

    @property
    def closed_ts(self) -> int:
        """Of the sample."""
        return self.sample.closed_ts

    @property
    def request_id(self) -> str:
        """Of the sample."""
        return self.sample.request_id

    @property
    def user_id(self) -> str:
        """Of the sample."""
        return self.sample.user_id

    @property
    def item_id(self) -> str:
        """Of the sample."""
        return self.sample.item_id
