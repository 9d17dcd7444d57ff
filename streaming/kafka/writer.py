"""A Kafka producer with a bounded number of records in flight that reports every failure."""

from __future__ import annotations

import logging
import threading
from collections import deque
from types import TracebackType
from typing import Any, Self

from kafka.errors import KafkaError, KafkaTimeoutError

from settings.errors import BrokerError
from settings.settings import Settings
from streaming.kafka.client import producer

log = logging.getLogger(__name__)

_PATIENCE_S = 2.0
_CLOSE_S = 2.0
_CHUNK = 5_000
_CHUNKS_IN_FLIGHT = 4


class Writer:
    """A producer with a bounded number of records in flight that reports every failure.

    ``KafkaProducer.flush`` does not report records that failed, and its buffer is unbounded. This
    class keeps the futures of ``send`` until the broker has acknowledged them. It waits for a
    broker that is down, until ``stopping`` is set.

    Args:
        settings: where the broker is.
        bulk: see :func:`producer`.
        stopping: stops waiting for a broker that is down.
    """

    def __init__(
        self, settings: Settings, *, bulk: bool, stopping: threading.Event | None = None
    ) -> None:
        self._producer = producer(settings, bulk=bulk)
        self._stopping = stopping or threading.Event()
        self._open: list[Any] = []
        self._sent: deque[list[Any]] = deque()
        self._last: dict[tuple[str, int], Any] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Flush, unless an exception is passing, and close."""
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def send(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        *,
        timestamp_ms: int | None = None,
    ) -> None:
        """Send one record; waits while too many are in flight.

        Args:
            topic: by its name on the broker.
            partition: of the topic.
            key: of the record.
            value: of the record.
            timestamp_ms: the record timestamp; None: now. A topic on the broker's clock ignores it.

        Raises:
            BrokerError: an earlier record was refused for good.
        """
        future = self._producer.send(
            topic, value, key, partition=partition, timestamp_ms=timestamp_ms
        )
        self._last[topic, partition] = future
        self._open.append(future)
        if len(self._open) >= _CHUNK:
            self._sent.append(self._open)
            self._open = []
            while len(self._sent) > _CHUNKS_IN_FLIGHT:
                self._settle(self._sent.popleft())

    def flush(self) -> None:
        """Return once the broker has acknowledged every record.

        Raises:
            BrokerError: a record was refused for good, or ``stopping`` was set while the broker
                is down.
        """
        while True:
            try:
                self._producer.flush(timeout=_PATIENCE_S)
            except KafkaTimeoutError:
                self._require_patience()
            else:
                break
        while self._sent:
            self._settle(self._sent.popleft())
        self._settle(self._open)
        self._open = []

    def ends(self) -> dict[str, dict[int, int]]:
        """Offset after the last record sent, by topic and partition; flushes first.

        Raises:
            BrokerError: as :meth:`flush`.
        """
        self.flush()
        found: dict[str, dict[int, int]] = {}
        for (topic, partition), future in self._last.items():
            found.setdefault(topic, {})[partition] = future.get().offset + 1
        return found

    def close(self) -> None:
        """Close the producer, after a last attempt to send what is in flight."""
        try:
            self._producer.close(timeout=_CLOSE_S)
        except KafkaTimeoutError:
            log.warning("the last records were not acknowledged before closing")
            # close() raises before it closes anything, and no public call drops unsent records
            self._producer._sender.force_close()
            self._producer.close(timeout=_CLOSE_S)

    def _settle(self, futures: list[Any]) -> None:
        for future in futures:
            while not future.succeeded():
                try:
                    future.get(_PATIENCE_S)
                except KafkaError as error:
                    if future.is_done:
                        raise BrokerError(f"the broker refused a record: {error}") from error
                    self._require_patience()

    def _require_patience(self) -> None:
        if self._stopping.is_set():
            raise BrokerError(
                "stopped while the broker was down: the last records may not have arrived"
            )
