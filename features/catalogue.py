"""Static attributes of users and items, from the compacted topics ``users`` and ``items``.

:class:`Catalogue` holds them in plain maps; :class:`CatalogueReader` fills it from Kafka and
follows the topics. Trainer and server each hold one.

**Attributes that change.** The server reads the newest ones. A sample is learnt with those as of
its time: the newest record whose own timestamp is not after it, or the id's oldest record if there
is none. So a change counts in training from the moment at which it reached the broker, in every
run. A trainer calls :meth:`CatalogueReader.ensure` with the ids and times of each batch: an id that
it has not met, or a time up to which the topics have not been read, makes it read them to their
end. A replay produces the catalogue before the first event.

Memory is one tuple per user and item, about 300 bytes, and as much for each of the newest changes
of an id; texts that repeat (genres, occupations) are held once.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from prometheus_client import Counter

from features.conversions import Converted, blank, converted
from features.declaration import Declaration
from features.declaration import Entity as EntityName
from settings.errors import BrokerError, EventError
from settings.settings import Settings
from streaming.events import Entity
from streaming.kafka.client import admin, begin_offsets, consumer, end_offsets
from streaming.kafka.span import read_until
from streaming.kafka.topics import ITEMS, USERS

log = logging.getLogger(__name__)

Statics = tuple[Converted, ...]

_TOPICS: dict[EntityName, str] = {"user": USERS, "item": ITEMS}
# forgetting costs a question to the broker, never a result
_ASKED_LIMIT = 1_000_000
# records of one id that are kept: the samples that are learnt lie behind by minutes, not by years
_HISTORY = 16
# how far the clocks of broker and trainer may lie apart
_SKEW_MS = 100

_REFUSED = Counter(
    "headrace_catalogue_refused", "Records of users and items that were skipped", ["entity"]
)


class Catalogue:
    """The static fields of every known user and item.

    Args:
        declaration: says which fields there are; other attributes are not kept.
        history: whether :meth:`rows` can be asked for attributes as of a time.

    Example:
        >>> from features.logs.movielens_features import MOVIELENS
        >>> catalogue = Catalogue(MOVIELENS)
        >>> catalogue.apply("item", b"7", b'{"id":"7","attributes":{"genres":["Drama"]}}')
        >>> catalogue.rows("item", ["7", "8"])
        [(('Drama',), ''), ((), '')]
    """

    def __init__(self, declaration: Declaration, *, history: bool = False) -> None:
        self._fields = {e: declaration.statics_of(e) for e in _TOPICS}
        self._blank: dict[EntityName, Statics] = {
            e: tuple(map(blank, fields)) for e, fields in self._fields.items()
        }
        self._rows: dict[EntityName, dict[str, Statics]] = {e: {} for e in _TOPICS}
        # of ids with several records: (timestamp, attributes), the oldest first
        self._history: dict[EntityName, dict[str, list[tuple[int, Statics]]]] | None = (
            {e: {} for e in _TOPICS} if history else None
        )
        self._deleted: dict[EntityName, set[str]] = {e: set() for e in _TOPICS}
        self._changed: dict[EntityName, set[str]] = {e: set() for e in _TOPICS}
        self.deletions = 0
        self._decoder = msgspec.json.Decoder(Entity)

    def apply(self, entity: EntityName, key: bytes, value: bytes | None, at_ms: int = 0) -> None:
        """Take in one record; a value of None deletes.

        Args:
            entity: of which topic it is.
            key: the id.
            value: of the record.
            at_ms: its timestamp.

        Raises:
            EventError: the value is not an entity, or a field has the wrong kind.
        """
        if value is None:
            id_ = key.decode(errors="replace")
            self._remember(entity, id_, self._blank[entity], at_ms)
            self._rows[entity].pop(id_, None)
            self._deleted[entity].add(id_)
            self.deletions += 1
            return
        try:
            record = self._decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise EventError(
                f"a record of {_TOPICS[entity]} is not an entity ({error}); write"
                ' {"id": …, "attributes": {name: text or list of texts}}',
                reason="wrong_type",
            ) from error
        fields = self._fields[entity]
        row = tuple(converted(f, record.attributes.get(f.source)) for f in fields)
        self._remember(entity, record.id, row, at_ms)
        self._rows[entity][record.id] = row
        if record.id in self._deleted[entity]:
            self._deleted[entity].discard(record.id)
            self.deletions += 1

    def _remember(self, entity: EntityName, id_: str, row: Statics, at_ms: int) -> None:
        """Note a change, and keep what held before it."""
        before = self._rows[entity].get(id_)
        if before is None and id_ in self._deleted[entity]:
            before = self._blank[entity]
        if before is None or before == row:
            return
        self._changed[entity].add(id_)
        if self._history is not None:
            kept = self._history[entity].setdefault(id_, [(0, before)])
            kept.append((at_ms, row))
            del kept[:-_HISTORY]

    def rows(
        self, entity: EntityName, ids: Iterable[str], at_ms: Iterable[int] | None = None
    ) -> list[Statics]:
        """The fields of each id, in the declaration's order: text, tuple of texts, or numbers.

        What is not known is empty: ``""`` or ``()``; a number is what the field says.

        Args:
            entity: whose.
            ids: of the rows.
            at_ms: as of which time, for each row; None: the newest.
        """
        known, blank = self._rows[entity], self._blank[entity]
        history = self._history[entity] if self._history is not None else None
        if at_ms is None or not history:
            return [known.get(id_, blank) for id_ in ids]
        return [
            _as_of(history[id_], at) if id_ in history else known.get(id_, blank)
            for id_, at in zip(ids, at_ms, strict=True)
        ]

    def knows(self, entity: EntityName, id_: str) -> bool:
        """Whether an id has a record."""
        return id_ in self._rows[entity]

    def deleted(self, entity: EntityName) -> set[str]:
        """Ids that were deleted and not put again; ``deletions`` counts the changes of this set."""
        return self._deleted[entity].copy()

    def take_changed(self, entity: EntityName) -> set[str]:
        """Ids whose attributes have changed since the last call; new ids are not among them."""
        changed, self._changed[entity] = self._changed[entity], set()
        return changed

    def ids(self, entity: EntityName) -> list[str]:
        """All ids that have a record, in the order in which they came."""
        return list(self._rows[entity])

    def unknown(self, entity: EntityName, ids: Iterable[str]) -> set[str]:
        """Those of the ids that have no record."""
        return set(ids) - self._rows[entity].keys()

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())


def check_entity(declaration: Declaration, entity: EntityName, record: Entity) -> None:
    """Whether a catalogue of this log can take a record in.

    Raises:
        EventError: a field has the wrong kind.
    """
    for field in declaration.statics_of(entity):
        converted(field, record.attributes.get(field.source))


def _as_of(records: list[tuple[int, Statics]], at_ms: int) -> Statics:
    for time_ms, row in reversed(records):
        if time_ms <= at_ms:
            return row
    return records[0][1]


class CatalogueReader:
    """Fills a catalogue from Kafka. Not for use by several threads; the catalogue itself is.

    Args:
        settings: where the broker is.
        catalogue: what to fill.

    Raises:
        BrokerError: no broker, or the topics have not been created.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._entities: dict[str, EntityName] = {settings.topic(t): e for e, t in _TOPICS.items()}
        # ids that were looked for and not found; a record that comes later is still read
        self._asked: dict[EntityName, set[str]] = {"user": set(), "item": set()}
        self._read_up_to_ms = 0
        self._admin = admin(settings)
        start: dict[tuple[str, int], int] = {}
        for topic in self._entities:
            offsets = begin_offsets(self._admin, topic)
            if not offsets:
                raise BrokerError(
                    f"topic {topic} does not exist on {settings.kafka.bootstrap}: create the topics"
                    " with `headrace up`"
                )
            start |= {(topic, partition): offset for partition, offset in offsets.items()}
        self._consumer = consumer(settings, start)

    def __enter__(self) -> CatalogueReader:
        """The reader itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @property
    def offsets(self) -> dict[tuple[str, int], int]:
        """Next offset by (topic name on the broker, partition)."""
        return {
            (at.topic, at.partition): self._consumer.position(at)
            for at in self._consumer.assignment()
        }

    def poll(self, timeout_ms: int = 0) -> int:
        """Take in what has come; returns the number of records."""
        polled = self._consumer.poll(timeout_ms=timeout_ms)
        return sum(self._take(record) for records in polled.values() for record in records)

    def _take(self, record: ConsumerRecord) -> int:
        entity = self._entities[record.topic]
        try:
            self.catalogue.apply(entity, record.key or b"", record.value, record.timestamp)
        except EventError as error:
            _REFUSED.labels(entity).inc()
            log.warning("%s, offset %d skipped: %s", record.topic, record.offset, error)
        return 1

    def read_to_end(self) -> int:
        """Take in everything that is on the topics now; returns the number of records.

        Raises:
            BrokerError: the broker does not report the end offset.
        """
        up_to_ms = time.time_ns() // 1_000_000 - _SKEW_MS
        try:
            ends = {
                (topic, partition): end
                for topic in self._entities
                for partition, end in end_offsets(self._admin, topic, committed=True).items()
            }
        except KafkaError as error:
            raise BrokerError(f"cannot read the catalogue's end: {error}") from error
        count = self.read_to(ends)
        self._read_up_to_ms = up_to_ms
        return count

    def read_to(self, offsets: Mapping[tuple[str, int], int]) -> int:
        """Take in the records before these offsets (a checkpoint's :attr:`offsets`).

        Raises:
            BrokerError: the broker does not give them.
        """
        return sum(map(self._take, read_until(self._consumer, offsets)))

    def ensure(self, entity: EntityName, ids: Sequence[str], at_ms: int = 0) -> None:
        """Read to the end if records of these ids may be there.

        That is if one is met for the first time and is not in the catalogue, or if the topics have
        not been read up to the time as of which attributes are wanted.

        Args:
            entity: whose ids.
            ids: of a batch.
            at_ms: the latest time of the batch, ms; 0: it does not matter.
        """
        new = self.catalogue.unknown(entity, ids) - self._asked[entity]
        if new or at_ms > self._read_up_to_ms:
            self.read_to_end()
            missing = self._asked[entity] | self.catalogue.unknown(entity, new)
            self._asked[entity] = missing if len(missing) < _ASKED_LIMIT else set()

    def close(self) -> None:
        """End the connections."""
        self._consumer.close()
        self._admin.close()
