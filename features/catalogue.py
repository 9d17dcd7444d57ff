"""Static attributes of users and items, from the compacted topics ``users`` and ``items``.

:class:`Catalogue` holds them in plain maps; :class:`CatalogueReader` fills it from Kafka and
follows the topics. Trainer and server each hold one.

A replay produces the catalogue before the first event, so a trainer that calls
:meth:`CatalogueReader.ensure` with the ids of each batch finds the same attributes in every run:
an id that it has not met makes it read the topics to their end once more. Memory is one tuple per
user and item, about 300 bytes; texts that repeat (genres, occupations) are held once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

import msgspec
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from prometheus_client import Counter

from features.declaration import Declaration, Static
from features.declaration import Entity as EntityName
from settings.errors import BrokerError, EventError
from settings.settings import Settings
from streaming.events import Entity
from streaming.kafka.client import admin, begin_offsets, consumer, end_offsets
from streaming.kafka.span import read_until
from streaming.kafka.topics import ITEMS, USERS

log = logging.getLogger(__name__)

Statics = tuple[str | tuple[str, ...], ...]

_TOPICS: dict[EntityName, str] = {"user": USERS, "item": ITEMS}
# forgetting costs a question to the broker, never a result
_ASKED_LIMIT = 1_000_000

_REFUSED = Counter(
    "headrace_catalogue_refused", "Records of users and items that were passed over", ["entity"]
)


class Catalogue:
    """The static fields of every known user and item.

    Args:
        declaration: says which fields there are; other attributes are not kept.

    Example:
        >>> from features.logs.movielens_features import MOVIELENS
        >>> catalogue = Catalogue(MOVIELENS)
        >>> catalogue.apply("item", b"7", b'{"id":"7","attributes":{"genres":["Drama"]}}')
        >>> catalogue.rows("item", ["7", "8"])
        [(('Drama',), ''), ((), '')]
    """

    def __init__(self, declaration: Declaration) -> None:
        self._fields = {e: declaration.statics_of(e) for e in _TOPICS}
        self._blank: dict[EntityName, Statics] = {
            e: tuple("" if f.kind == "sparse" else () for f in fields)
            for e, fields in self._fields.items()
        }
        self._rows: dict[EntityName, dict[str, Statics]] = {e: {} for e in _TOPICS}
        self._decoder = msgspec.json.Decoder(Entity)

    def apply(self, entity: EntityName, key: bytes, value: bytes | None) -> None:
        """Take in one record; a value of None deletes.

        Raises:
            EventError: the value is not an entity, or a field has the wrong kind.
        """
        if value is None:
            self._rows[entity].pop(key.decode(errors="replace"), None)
            return
        try:
            record = self._decoder.decode(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise EventError(
                f"a record of {_TOPICS[entity]} is not an entity ({error}); write"
                ' {"id": …, "attributes": {name: text or list of texts}}',
                reason="wrong_type",
            ) from error
        self._rows[entity][record.id] = tuple(
            _static(field, record.attributes) for field in self._fields[entity]
        )

    def rows(self, entity: EntityName, ids: Iterable[str]) -> list[Statics]:
        """The fields of each id, in the declaration's order: text, or tuple of texts (multi).

        What is not known is empty: ``""`` or ``()``.
        """
        known, blank = self._rows[entity], self._blank[entity]
        return [known.get(id_, blank) for id_ in ids]

    def ids(self, entity: EntityName) -> list[str]:
        """All ids that have a record, in the order in which they came."""
        return list(self._rows[entity])

    def unknown(self, entity: EntityName, ids: Iterable[str]) -> set[str]:
        """Those of the ids that have no record."""
        return set(ids) - self._rows[entity].keys()

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._rows.values())


def _static(
    field: Static, attributes: Mapping[str, str | float | Sequence[str | float]]
) -> str | tuple[str, ...]:
    value = attributes.get(field.name)
    if field.kind == "multi":
        if isinstance(value, str | float | int):
            raise _wrong_kind(field, "a list of texts")
        texts = [one for one in value or () if isinstance(one, str)]
        if value is not None and len(texts) < len(value):
            raise _wrong_kind(field, "a list of texts")
        return tuple(map(sys.intern, texts))
    if value is not None and not isinstance(value, str):
        raise _wrong_kind(field, "one text")
    return sys.intern(value or "")


def _wrong_kind(field: Static, wanted: str) -> EventError:
    return EventError(
        f"attribute {field.name!r} of a {field.entity} must be {wanted}",
        reason="wrong_type",
        field=field.name,
    )


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
        # ids that have been looked for in vain; a record that comes later is still taken in
        self._asked: dict[EntityName, set[str]] = {"user": set(), "item": set()}
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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
            self.catalogue.apply(entity, record.key or b"", record.value)
        except EventError as error:
            _REFUSED.labels(entity).inc()
            log.warning("%s, offset %d passed over: %s", record.topic, record.offset, error)
        return 1

    def read_to_end(self) -> int:
        """Take in everything that is on the topics now; returns the number of records.

        Raises:
            BrokerError: the broker does not tell where the end is.
        """
        try:
            ends = {
                (topic, partition): end
                for topic in self._entities
                for partition, end in end_offsets(self._admin, topic, committed=True).items()
            }
        except KafkaError as error:
            raise BrokerError(f"cannot read the catalogue's end: {error}") from error
        return self.read_to(ends)

    def read_to(self, offsets: Mapping[tuple[str, int], int]) -> int:
        """Take in the records before these offsets (a checkpoint's :attr:`offsets`).

        Raises:
            BrokerError: the broker does not give them.
        """
        return sum(map(self._take, read_until(self._consumer, offsets)))

    def ensure(self, entity: EntityName, ids: Sequence[str]) -> None:
        """Read to the end if an id is met for the first time and is not in the catalogue."""
        new = self.catalogue.unknown(entity, ids) - self._asked[entity]
        if new:
            self.read_to_end()
            missing = self._asked[entity] | self.catalogue.unknown(entity, new)
            self._asked[entity] = missing if len(missing) < _ASKED_LIMIT else set()

    def close(self) -> None:
        """End the connections."""
        self._consumer.close()
        self._admin.close()
