"""How far a replay may run ahead of the job.

The job reads impressions and clicks each at its own pace, and holds the events of the topic that is
ahead until the other has come to their time. Behind a long queue that is most of one topic, in the
job's memory and in each of its checkpoints. A replay that waits for the job keeps the queue short.
"""

from __future__ import annotations

import time
from collections import deque

from settings.settings import Settings
from streaming.kafka.watermark import WatermarkReader

_LOOK_S = 0.5


class Lead:
    """Events that were sent and that the job's watermark has not passed.

    Args:
        reader: of the watermark.
        most: events.
        slack_ms: how far the watermark stays behind the marks.
    """

    def __init__(self, reader: WatermarkReader, most: int, slack_ms: int) -> None:
        self._reader = reader
        self._most = most
        self._slack_ms = slack_ms
        self._marks: deque[tuple[int, int]] = deque()
        self._done = self._sent = 0
        self._next_look = 0.0

    @classmethod
    def of(cls, settings: Settings, reader: WatermarkReader, most: int) -> Lead:
        """With the slack of the settings."""
        return cls(reader, most, settings.flink.out_of_orderness_ms + 1)

    def marked(self, ts: int, events: int) -> None:
        """A mark of ``ts`` was sent behind so many events."""
        self._marks.append((ts, events))
        self._sent = events

    @property
    def exceeded(self) -> bool:
        """Whether the replay has to wait.

        Raises:
            BrokerError: no broker.
        """
        if self._sent - self._done <= self._most:
            return False
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_S
            done = self._reader.newest() + self._slack_ms
            while self._marks and self._marks[0][0] <= done:
                _, self._done = self._marks.popleft()
        return self._sent - self._done > self._most
