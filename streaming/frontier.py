"""How far samples are complete: the newest time marks among the samples."""

from __future__ import annotations

import msgspec

from headrace.settings import Settings
from streaming.kafka import admin, begin_offsets, consumer, end_offsets
from streaming.topics import SAMPLES

_TAIL_RECORDS = 500
_WAIT_MS = 200


class _Mark(msgspec.Struct):
    frontier: int | None = None


def newest_frontier(settings: Settings) -> int:
    """Event time (ms) up to which every partition of the samples is complete; -1: none says so.

    Raises:
        BrokerError: no broker.
    """
    topic = settings.topic(SAMPLES)
    with admin(settings) as client:
        begin = begin_offsets(client, topic)
        ends = end_offsets(client, topic, committed=True)
    found = dict.fromkeys(ends, -1)
    start = {(topic, p): max(begin[p], end - _TAIL_RECORDS) for p, end in ends.items()}
    start = {key: offset for key, offset in start.items() if offset < ends[key[1]]}
    if not start:
        return -1
    decode = msgspec.json.Decoder(_Mark).decode
    reader = consumer(settings, start)
    try:
        while any(reader.position(at) < ends[at.partition] for at in reader.assignment()):
            for at, records in reader.poll(timeout_ms=_WAIT_MS).items():
                for record in records:
                    frontier = decode(record.value).frontier
                    if frontier is not None:
                        found[at.partition] = max(found[at.partition], frontier)
    finally:
        reader.close()
    return min(found.values())
