"""Reads a span of topics, from given offsets to given offsets, with a deadline.

It compares positions and not the offsets of records: the markers of a transaction take offsets, but
are never delivered.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from settings.errors import BrokerError
from settings.settings import Settings
from streaming.kafka.client import admin, begin_offsets, consumer, end_offsets

# offset by (topic name on the broker, partition)
Offsets = Mapping[tuple[str, int], int]

PATIENCE_S = 60.0
_POLL_MS = 100


def span(
    settings: Settings,
    names: Collection[str],
    *,
    committed: bool = True,
    newest: int | None = None,
) -> tuple[dict[tuple[str, int], int], dict[tuple[str, int], int]]:
    """First and next offsets of topics, now.

    Args:
        settings: where the broker is.
        names: the topics, without prefix.
        committed: the ends as a reader of committed records sees them.
        newest: begin at most so many offsets before the end of each partition.

    Returns:
        First and next offset by (topic name on the broker, partition); nothing for a topic that
        does not exist.

    It raises:
        BrokerError: no broker.
    """
    start: dict[tuple[str, int], int] = {}
    end: dict[tuple[str, int], int] = {}
    with admin(settings) as client:
        for topic in map(settings.topic, names):
            begin = begin_offsets(client, topic)
            for partition, offset in end_offsets(client, topic, committed=committed).items():
                end[topic, partition] = offset
                first = begin[partition]
                start[topic, partition] = first if newest is None else max(first, offset - newest)
    return start, end


def read_span(
    settings: Settings,
    start: Offsets,
    end: Offsets,
    *,
    committed: bool = True,
    patience_s: float = PATIENCE_S,
) -> Iterator[ConsumerRecord]:
    """All records from ``start`` up to, not including, ``end``; in order within a partition.

    Args:
        settings: where the broker is.
        start: first offset of each partition; each must still be there.
        end: where to stop; a partition that is not named, or ends before its start, is not read.
        committed: leave out records of open and aborted transactions.
        patience_s: longest time without progress.

    Raises:
        BrokerError: the broker cannot be reached, fails, or makes no progress for so long.
    """
    behind = {at: offset for at, offset in start.items() if offset < end.get(at, 0)}
    if not behind:
        return
    reader = consumer(settings, behind, committed=committed)
    try:
        for record in read_until(reader, {at: end[at] for at in behind}, patience_s=patience_s):
            if record.offset < end[record.topic, record.partition]:
                yield record
    finally:
        reader.close()


def read_until(
    reader: KafkaConsumer, end: Offsets, *, patience_s: float = PATIENCE_S
) -> Iterator[ConsumerRecord]:
    """Records of a consumer until its position reaches ``end``; some may be beyond it.

    Raises:
        BrokerError: the broker fails, or makes no progress for ``patience_s``.
    """
    ends = {TopicPartition(*at): offset for at, offset in end.items()}
    deadline = time.monotonic() + patience_s
    try:
        standing = {at: reader.position(at) for at in ends}
        while any(standing[at] < offset for at, offset in ends.items()):
            for records in reader.poll(timeout_ms=_POLL_MS).values():
                yield from records
            before, standing = standing, {at: reader.position(at) for at in ends}
            if standing != before:
                deadline = time.monotonic() + patience_s
            elif time.monotonic() > deadline:
                raise BrokerError(_silent(reader, ends, patience_s))
    except KafkaError as error:
        topics = ", ".join(sorted({at.topic for at in ends}))
        raise BrokerError(f"reading {topics} failed ({error}): try it again") from error


def _silent(reader: KafkaConsumer, ends: Mapping[TopicPartition, int], patience_s: float) -> str:
    missing = ", ".join(
        f"{at.topic}/{at.partition} from {reader.position(at)} to {end}"
        for at, end in ends.items()
        if reader.position(at) < end
    )
    return (
        f"the broker gave no record for {patience_s:.0f} s, though there are some ({missing}): look"
        " at the broker's log, then try it again"
    )
