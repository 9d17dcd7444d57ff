"""The outbox: sends records to Kafka without making a request wait.

Records go into a bounded queue. A thread passes them to the producer, which retries until the
broker has them. While the broker is down rankings continue and the queue fills; records that no
longer fit are counted as lost (``headrace_outbox_lost_total``) and logged once an outage. Posted
events wait for Kafka's acknowledgement (:meth:`Outbox.deliver`).
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from serving.server_metrics import OUTBOX_DELIVERED, OUTBOX_LOST, OUTBOX_PENDING
from settings.errors import BrokerError
from settings.settings import Settings
from streaming.kafka.client import producer

log = logging.getLogger(__name__)

CAPACITY = 100_000
_RETRY_S = 1.0
_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class OutboxRecord:
    """One record: topic as the broker names it, key, value (None: the key is deleted)."""

    topic: str
    key: bytes
    value: bytes | None


@dataclass(slots=True)
class _Parcel:
    records: Sequence[OutboxRecord]
    on_done: Callable[[str | None], None] | None
    left: int
    error: str | None = None


class Outbox:
    """A bounded queue before a Kafka producer, with its own thread.

    Args:
        settings: where the broker is; it need not be there yet.
        capacity: records that may be waiting or under way.
    """

    def __init__(self, settings: Settings, capacity: int = CAPACITY) -> None:
        self._settings = settings
        self._capacity = capacity
        self._queue: SimpleQueue[_Parcel | None] = SimpleQueue()
        self._pending = 0
        self._lock = threading.Lock()
        self._full = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        OUTBOX_PENDING.set_function(lambda: self._pending)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def stop(self) -> None:
        """Send what is left for at most a few seconds, then end; the rest is counted as lost."""
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()

    @property
    def pending(self) -> int:
        """Records that Kafka has not acknowledged yet."""
        return self._pending

    def offer(self, records: Sequence[OutboxRecord]) -> bool:
        """Take records to be sent some time; False, and counted as lost, if there is no room."""
        return self._put(_Parcel(records, None, len(records)))

    async def deliver(self, records: Sequence[OutboxRecord], timeout_s: float) -> None:
        """Send records and return once Kafka has acknowledged every one.

        Raises:
            BrokerError: it has not in time, or there is no room. Records may still arrive later.
        """
        if not records:
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[str | None] = loop.create_future()

        def tell(error: str | None) -> None:
            if not done.done():
                done.set_result(error)

        parcel = _Parcel(records, lambda error: _call_soon(loop, tell, error), len(records))
        if not self._put(parcel):
            raise BrokerError(
                f"{self._pending} records wait for the broker at"
                f" {self._settings.kafka.bootstrap} already"
            )
        try:
            error = await asyncio.wait_for(done, timeout_s)
        except TimeoutError:
            raise BrokerError(
                f"the broker at {self._settings.kafka.bootstrap} did not acknowledge within"
                f" {timeout_s:g} s"
            ) from None
        if error is not None:
            raise BrokerError(error)

    def _put(self, parcel: _Parcel) -> bool:
        with self._lock:
            fits = self._pending + parcel.left <= self._capacity and not self._stopping.is_set()
            if fits:
                self._pending += parcel.left
        if fits != (not self._full):
            self._full = not fits
            if self._full:
                log.error(
                    "outbox full: %d records wait for the broker at %s; impressions are lost until"
                    " it is back",
                    self._pending,
                    self._settings.kafka.bootstrap,
                )
            else:
                log.info("outbox has room again")
        if fits:
            self._queue.put(parcel)
        else:
            for record in parcel.records:
                OUTBOX_LOST.labels(record.topic, "full").inc()
        return fits

    def _run(self) -> None:
        client = self._connect()
        while client is not None and (parcel := self._queue.get()) is not None:
            for record in parcel.records:
                self._send(client, parcel, record)
        if client is not None:
            self._close(client)
        while True:
            try:
                parcel = self._queue.get_nowait()
            except Empty:
                return
            if parcel is not None:
                for record in parcel.records:
                    self._settle(parcel, record, "stopped", "the server stops")

    def _close(self, client: KafkaProducer) -> None:
        try:
            client.close(timeout=_STOP_S)
        except KafkaError as error:
            log.warning("stopped before the broker took everything: %s", error)
            # close() raises before it ends anything, and no public call drops what is unsent
            client._sender.force_close()
            client.close(timeout=_STOP_S)

    def _connect(self) -> KafkaProducer | None:
        said = False
        while not self._stopping.is_set():
            try:
                return producer(self._settings)
            except BrokerError as error:
                if not said:
                    log.warning("%s; trying again until it is there", error)
                    said = True
                self._stopping.wait(_RETRY_S)
        return None

    def _send(self, client: KafkaProducer, parcel: _Parcel, record: OutboxRecord) -> None:
        try:
            sent = client.send(record.topic, record.value, record.key)
        except KafkaError as error:
            self._settle(parcel, record, "refused", f"Kafka takes no records: {error}")
            return
        sent.add_callback(lambda _: self._settle(parcel, record, None, None))
        sent.add_errback(lambda error: self._fail(parcel, record, error))

    def _fail(self, parcel: _Parcel, record: OutboxRecord, error: Exception) -> None:
        if self._stopping.is_set():
            self._settle(parcel, record, "stopped", f"the server stops: {error}")
        else:
            self._settle(parcel, record, "refused", f"Kafka refused: {error}")

    def _settle(
        self, parcel: _Parcel, record: OutboxRecord, reason: str | None, error: str | None
    ) -> None:
        """One record has arrived (no reason) or never will."""
        if reason is None:
            OUTBOX_DELIVERED.labels(record.topic).inc()
        else:
            OUTBOX_LOST.labels(record.topic, reason).inc()
        with self._lock:
            self._pending -= 1
            parcel.left -= 1
            parcel.error = parcel.error or error
            finished = parcel.left == 0
        if finished and parcel.error is not None:
            log.error("%d records or fewer are lost: %s", len(parcel.records), parcel.error)
        if finished and parcel.on_done is not None:
            parcel.on_done(parcel.error)


def _call_soon(loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], value: object) -> None:
    """Call in the loop's thread; after the loop has ended nothing waits for the result."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call, value)
