"""``python -m features.feature_writer SETTINGS``: from the feature topics into the online store.

Of the records that one round brings, the newest of each key is written, in one transaction with the
position behind them. So each row is written at least once, whatever is killed. An older row never
replaces a newer one: the time of what was written is remembered, and read from the store for a key
that this process has not written yet. There must be one writer for a store.

Metrics: ``headrace_writer_records_total``, ``headrace_writer_rows_total``,
``headrace_writer_stale_total`` (older than what is stored), ``headrace_writer_refused_total`` (no
row at all), ``headrace_writer_lag_records``, ``headrace_writer_newest_event_seconds`` (unix time:
``time() - …`` is the age of the newest feature), ``headrace_writer_write_seconds``; all by entity.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from prometheus_client import Counter, Gauge, Histogram, start_http_server

from features.declaration import ENTITIES, Declaration, Entity
from features.declared import declared_features
from features.feast_repo import ensure_applied
from features.online_table import LATEST_MS, OnlineTable, online_table
from settings.errors import BrokerError, HeadraceError, StorageError
from settings.settings import Settings
from streaming.events import MAX_TIME_MS
from streaming.kafka.client import admin, begin_offsets, consumer, wait_for_broker
from streaming.kafka.topics import ITEM_FEATURES, USER_FEATURES
from streaming.kafka.tune_gc import tune_gc

log = logging.getLogger(__name__)

_TOPICS: dict[Entity, str] = {"user": USER_FEATURES, "item": ITEM_FEATURES}
# no event has an empty id, so this row of the store is free; the position is stored with the rows
# and is lost exactly when they are
_POSITION = ""
_WAIT_MS = 100
# while it is behind, more records a round mean fewer rows to write
_ROUND_RECORDS = 20_000
_ROUND_S = 0.25
_RETRY_S = 1.0
# keys whose time is remembered (about 150 bytes each); of others the store is asked
_REMEMBERED = 1_000_000

_RECORDS = Counter("headrace_writer_records", "Records read", ["entity"])
_ROWS = Counter("headrace_writer_rows", "Rows written", ["entity"])
_STALE = Counter("headrace_writer_stale", "Rows older than the stored one", ["entity"])
_REFUSED = Counter("headrace_writer_refused", "Records that are no feature row", ["entity"])
_LAG = Gauge("headrace_writer_lag_records", "Records not read yet", ["entity"])
_NEWEST = Gauge("headrace_writer_newest_event_seconds", "Time of the newest event", ["entity"])
_SECONDS = Histogram("headrace_writer_write_seconds", "Time to write one round", ["entity"])


_T = TypeVar("_T")
# the store holds times as dates, and the empty id for the position
_Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME_MS)]
_Id = Annotated[str, msgspec.Meta(min_length=1)]


class _Position(msgspec.Struct, frozen=True):
    """Which topic the rows come from, and the next offset of each partition."""

    topic: str
    offsets: dict[int, int]


class View:
    """One view of the store and the order of time in it.

    Args:
        table: its rows.
        entity: whose rows.
        batch_rows: rows of one transaction at most.
    """

    def __init__(self, table: OnlineTable, entity: Entity, batch_rows: int) -> None:
        self._table = table
        self._entity = entity
        self._batch_rows = batch_rows
        self._times: OrderedDict[str, int] = OrderedDict()
        # of a row only these are looked at; the rest passes as it is
        stamp = msgspec.defstruct(
            "Stamp", [("id", _Id, msgspec.field(name=f"{entity}_id")), ("ts", _Time)]
        )
        self._stamps: msgspec.json.Decoder[Any] = msgspec.json.Decoder(stamp)
        self._newest = 0

    def position(self, topic: str) -> dict[int, int]:
        """The next offset of each partition as far as the store holds the topic; empty: nothing.

        Raises:
            StorageError: the rows come from another topic.
        """
        packed = self._table.read([_POSITION])[0]
        if packed is None:
            return {}
        found = msgspec.json.decode(packed, type=_Position)
        if found.topic != topic:
            raise StorageError(
                f"the feature store holds rows of another topic ({found.topic}, this is {topic}),"
                " made before a reset or by another cluster: empty it with `headrace reset`"
            )
        return found.offsets

    def write(self, values: Iterable[bytes], topic: str, offsets: dict[int, int]) -> int:
        """Write the rows that are not older than what is stored, and then the position.

        Args:
            values: packed rows, one a key at most.
            topic: identity of the topic that they come from.
            offsets: what to read next from it.

        Returns:
            The number of rows written.

        Raises:
            StorageError: the store failed; nothing or a part was written, and the position was not.
        """
        rows = self._fresh(values)
        position = msgspec.json.encode(_Position(topic, offsets))
        # the position last: a part of the rows without it is written again, which is harmless
        for chunk in _chunks([*rows, (_POSITION, 0, position)], self._batch_rows):
            self._table.write(chunk)
        for id_, ts, _ in rows:
            self._times[id_] = ts
            self._times.move_to_end(id_)
        while len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)
        if rows:
            self._newest = max(self._newest, *(ts for _, ts, _ in rows))
            _NEWEST.labels(self._entity).set(self._newest / 1000)
        _ROWS.labels(self._entity).inc(len(rows))
        return len(rows)

    def _fresh(self, values: Iterable[bytes]) -> list[tuple[str, int, bytes]]:
        rows = []
        for value in values:
            try:
                stamp = self._stamps.decode(value)
            except msgspec.MsgspecError as error:
                _REFUSED.labels(self._entity).inc()
                log.warning("a record of %s is no feature row: %s", _TOPICS[self._entity], error)
                continue
            if not 0 <= stamp.ts <= LATEST_MS:
                _REFUSED.labels(self._entity).inc()
                log.warning("a record of %s has ts %d: no time", _TOPICS[self._entity], stamp.ts)
                continue
            rows.append((stamp.id, stamp.ts, value))
        self._recall([id_ for id_, _, _ in rows])
        # rows of one time are equal or later in the topic: the later one stays
        fresh = [row for row in rows if row[1] >= self._times.get(row[0], row[1])]
        _STALE.labels(self._entity).inc(len(rows) - len(fresh))
        return fresh

    def _recall(self, ids: Iterable[str]) -> None:
        unknown = [id_ for id_ in ids if id_ not in self._times]
        for chunk in _chunks(unknown, self._batch_rows):
            for id_, packed in zip(chunk, self._table.read(chunk), strict=True):
                if packed is not None:
                    self._times[id_] = self._stamps.decode(packed).ts


class FeatureWriter:
    """Follows the feature topics and keeps the store up to date.

    Args:
        settings: broker, store and state folder.
        log_declaration: of the log.

    Raises:
        BrokerError: no broker, or the topics have not been created.
        StorageError: the store cannot be used, or holds rows of other topics.
    """

    def __init__(self, settings: Settings, log_declaration: Declaration) -> None:
        self._stopping = threading.Event()
        rows = settings.feast.batch_rows
        self._views = {e: View(online_table(settings, e), e, rows) for e in ENTITIES}
        self._entities: dict[str, Entity] = {settings.topic(t): e for e, t in _TOPICS.items()}
        self._identities: dict[Entity, str] = {}
        first: dict[str, dict[int, int]] = {}
        with admin(settings) as client:
            for topic, entity in self._entities.items():
                begin = begin_offsets(client, topic)
                if not begin:
                    raise BrokerError(
                        f"topic {topic} does not exist on {settings.kafka.bootstrap}: create the"
                        " topics with `headrace up`"
                    )
                self._identities[entity] = str(client.describe_topics([topic])[0]["topic_id"])
                first[topic] = begin
        ensure_applied(settings, log_declaration)
        start: dict[tuple[str, int], int] = {}
        for topic, entity in self._entities.items():
            known = self._views[entity].position(self._identities[entity])
            start |= {(topic, p): known.get(p, offset) for p, offset in first[topic].items()}
        self._consumer = consumer(settings, start, max_poll_records=_ROUND_RECORDS)
        log.info("writing from %s", {f"{t}/{p}": offset for (t, p), offset in start.items()})

    def stop(self) -> None:
        """Let :meth:`run` return after the round that it is in. May be called by any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Write until :meth:`stop`, then close. A store that fails is tried again and again."""
        try:
            while not self._stopping.is_set():
                for entity, newest in self._round().items():
                    self._write(entity, newest)
                self._measure_lag()
        finally:
            self._consumer.close()

    def _round(self) -> dict[Entity, dict[bytes, bytes]]:
        """The last record of each key that comes within one round, by entity."""
        newest: dict[Entity, dict[bytes, bytes]] = {}
        count, deadline, wait = 0, 0.0, _WAIT_MS
        while True:
            polled = self._consumer.poll(timeout_ms=wait)
            if not polled:
                return newest
            for at, records in polled.items():
                entity = self._entities[at.topic]
                rows = newest.setdefault(entity, {})
                for record in records:
                    if record.value is not None:
                        rows[record.key] = record.value
                count += len(records)
                _RECORDS.labels(entity).inc(len(records))
            now = time.monotonic()
            deadline = deadline or now + _ROUND_S
            if count >= _ROUND_RECORDS or now > deadline:
                return newest
            wait = 0

    def _write(self, entity: Entity, newest: dict[bytes, bytes]) -> None:
        offsets = {
            at.partition: self._consumer.position(at)
            for at in self._consumer.assignment()
            if self._entities[at.topic] == entity
        }
        began = time.perf_counter()
        while True:
            try:
                self._views[entity].write(newest.values(), self._identities[entity], offsets)
            except StorageError:
                log.exception("features of %ss were not written; trying again", entity)
                if self._stopping.wait(_RETRY_S):
                    return
            else:
                break
        _SECONDS.labels(entity).observe(time.perf_counter() - began)

    def _measure_lag(self) -> None:
        lag: dict[Entity, int] = dict.fromkeys(ENTITIES, 0)
        for at in self._consumer.assignment():
            end = self._consumer.highwater(at)
            if end is not None:
                lag[self._entities[at.topic]] += max(0, end - self._consumer.position(at))
        for entity, records in lag.items():
            _LAG.labels(entity).set(records)


def _chunks(rows: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (rows[at : at + size] for at in range(0, len(rows), size))


def main(settings: Settings) -> None:
    """Run the writer until SIGTERM or SIGINT."""
    wait_for_broker(settings)
    writer = FeatureWriter(settings, declared_features(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: writer.stop())
    tune_gc()
    start_http_server(settings.writer_metrics_port, addr=settings.metrics_host)
    writer.run()
    log.info("stopped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        main(Settings.read(Path(sys.argv[1])))
    except HeadraceError as error:
        sys.exit(f"features.feature_writer: {error}")
