"""Time marks: records in every partition of events that move the job's watermark.

A mark says that nothing with an older record timestamp than its own follows. In a replay the mark
brings its timestamp, live the broker stamps it on arrival, like everything else.
"""

from __future__ import annotations

from settings.settings import Settings
from streaming.events import TimeMark, encode
from streaming.kafka import topics
from streaming.kafka.writer import Writer

EVENT_TOPICS = (topics.IMPRESSIONS, topics.CLICKS)


class Marker:
    """Writes a time mark into every partition of impressions and clicks.

    Args:
        settings: names and partitions of the topics.
        writer: the writer of the events, so that a mark stays behind earlier events.
    """

    def __init__(self, settings: Settings, writer: Writer) -> None:
        self._writer = writer
        self._partitions = [
            (settings.topic(name), partition)
            for name in EVENT_TOPICS
            for partition in range(settings.kafka.partitions)
        ]

    def mark(self, ts: int) -> None:
        """Write a mark: no event known before ``ts`` (ms) follows."""
        value = encode(TimeMark(time_mark=ts))
        for topic, partition in self._partitions:
            self._writer.send(topic, partition, None, value, timestamp_ms=ts)
