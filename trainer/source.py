"""Reads ``training.samples`` from given offsets, committed records only."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from kafka import TopicPartition
from kafka.errors import OffsetOutOfRangeError

from settings.errors import BrokerError, CheckpointError
from settings.settings import Settings
from streaming.kafka import topics
from streaming.kafka.client import admin, begin_offsets, consumer, end_offsets

log = logging.getLogger(__name__)


class SampleRecord(NamedTuple):
    """One record of the topic."""

    partition: int
    offset: int
    value: bytes


class SampleSource:
    """A reader of all partitions of the sample topic that keeps its own offsets.

    Args:
        settings: where the broker is.
        offsets: next offset of each partition, from a checkpoint; partitions that are not in it
            are read from their beginning.

    Attributes:
        offsets: next offset of each partition: everything before it was yielded.

    It raises:
        BrokerError: there is no sample topic.
        CheckpointError: an offset points to records that the topic does not have.
    """

    def __init__(self, settings: Settings, offsets: Mapping[int, int]) -> None:
        self._topic = settings.topic(topics.SAMPLES)
        with admin(settings) as client:
            first = begin_offsets(client, self._topic)
            end = end_offsets(client, self._topic)
        if not first:
            raise BrokerError(
                f"topic {self._topic} does not exist: start the system with `headrace up`, which"
                " creates the topics, or create them before the trainer starts"
            )
        _check(self._topic, offsets, first, end)
        self.offsets = {p: offsets.get(p, 0) for p in first}
        self._consumer = consumer(
            settings, {(self._topic, p): offset for p, offset in self.offsets.items()}, wait_ms=50
        )
        self._paused: set[int] = set()

    def poll(self, timeout_ms: int) -> Iterator[SampleRecord]:
        """Records that have arrived, at most some thousands; none at the timeout.

        A broker that is down looks like one that has no records.

        Raises:
            CheckpointError: the next record has been deleted from the topic.
        """
        try:
            polled = self._consumer.poll(timeout_ms=timeout_ms)
        except OffsetOutOfRangeError as error:
            raise CheckpointError(
                f"the next samples of {self._topic} are gone ({error}): the topic was deleted or"
                " its retention is too short; learn from what is there after `headrace reset`"
            ) from error
        for place, records in polled.items():
            for record in records:
                self.offsets[place.partition] = record.offset + 1
                yield SampleRecord(place.partition, record.offset, record.value)

    def hold(self, ahead: set[int]) -> None:
        """Pause these partitions, which have run ahead, until the next call."""
        if ahead == self._paused:
            return
        self._consumer.resume(*self._places(self._paused - ahead))
        self._consumer.pause(*self._places(ahead - self._paused))
        self._paused = set(ahead)

    def _places(self, partitions: set[int]) -> list[TopicPartition]:
        return [TopicPartition(self._topic, p) for p in sorted(partitions)]

    def lag(self) -> int:
        """Records on the broker that were not yielded yet."""
        behind = 0
        for partition, offset in self.offsets.items():
            end = self._consumer.highwater(TopicPartition(self._topic, partition))
            behind += max(0, (end or offset) - offset)
        return behind

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()


def _check(
    topic: str, offsets: Mapping[int, int], first: Mapping[int, int], end: Mapping[int, int]
) -> None:
    for partition, offset in sorted(offsets.items()):
        where = f"the checkpoint goes on at record {offset} of partition {partition} of {topic}"
        if partition not in first:
            raise CheckpointError(
                f"{where}, but the topic has no such partition: it was made anew; `headrace reset`"
                " clears checkpoints and topics together"
            )
        if not first[partition] <= offset <= end[partition]:
            raise CheckpointError(
                f"{where}, but the topic holds {first[partition]} to {end[partition]}: samples in"
                " between would be lost or learnt twice; if the topic was made anew, `headrace"
                " reset` clears checkpoints and topics together"
            )
    for partition, offset in first.items():
        if partition not in offsets and offset > 0:
            raise CheckpointError(
                f"partition {partition} of {topic} begins at record {offset}: samples before it are"
                " deleted, so nothing can be learnt from its beginning; `headrace reset`, replay"
            )
