"""Reads the watermark of the samples: event time up to which they are complete."""

from __future__ import annotations

from contextlib import ExitStack

import msgspec
from kafka import TopicPartition

from settings.settings import Settings
from streaming.kafka.client import admin, begin_offsets, consumer, end_offsets
from streaming.kafka.span import read_until
from streaming.kafka.topics import SAMPLES

# marks are up to a thousand events apart
_TAIL_RECORDS = 1_200


class _Mark(msgspec.Struct):
    watermark: int | None = None


class WatermarkReader:
    """Reads the watermark of the samples again and again; a context manager.

    Raises:
        BrokerError: no broker.
    """

    def __init__(self, settings: Settings) -> None:
        self._topic = settings.topic(SAMPLES)
        self._decode = msgspec.json.Decoder(_Mark).decode
        with ExitStack() as stack:
            self._admin = stack.enter_context(admin(settings))
            begin = begin_offsets(self._admin, self._topic)
            self._consumer = consumer(settings, {(self._topic, p): at for p, at in begin.items()})
            stack.callback(self._consumer.close)
            self._stack = stack.pop_all()
        self._begin = begin
        self._found = dict.fromkeys(begin, -1)

    def __enter__(self) -> WatermarkReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def newest(self) -> int:
        """Time (ms) up to which every partition of the samples is complete; -1: unknown.

        Raises:
            BrokerError: no broker.
        """
        ends = end_offsets(self._admin, self._topic, committed=True)
        behind = {}
        for partition, end in ends.items():
            place = TopicPartition(self._topic, partition)
            start = max(self._begin[partition], end - _TAIL_RECORDS, self._consumer.position(place))
            if start < end:
                self._consumer.seek(place, start)
                behind[self._topic, partition] = end
        for record in read_until(self._consumer, behind):
            watermark = self._decode(record.value).watermark
            if watermark is not None:
                self._found[record.partition] = max(self._found[record.partition], watermark)
        return min(self._found.values(), default=-1)
