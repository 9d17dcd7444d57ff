"""Checks users and items that an application posts, and turns them into records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from features.catalogue import check_entity
from features.declaration import Declaration
from features.declaration import Entity as EntityName
from serving.http.messages import EntityBatch, EntityUpsert
from serving.http.outbox import OutboxRecord
from serving.http.problems import RequestError, cure_for, decode
from settings.errors import EventError
from settings.settings import Settings
from streaming.events import MAX_EVENT_BYTES, MAX_ID_BYTES, Entity, encode
from streaming.kafka.topics import ITEMS, USERS

TOPICS: dict[EntityName, str] = {"item": ITEMS, "user": USERS}

_batch = msgspec.json.Decoder(EntityBatch)


@dataclass(frozen=True, slots=True)
class Changes:
    """Checked changes of users or items, ready for Kafka."""

    records: list[OutboxRecord]
    upserted: int
    deleted: int


def read_changes(
    body: bytes, entity: EntityName, declaration: Declaration, settings: Settings
) -> Changes:
    """Read a batch ``{"upsert": [{"id", "attributes"}], "delete": [ids]}``.

    Raises:
        RequestError: 400 or 422; names the field, such as ``upsert[2].attributes.genres``.
    """
    batch = decode(_batch, body)
    if not batch.upsert and not batch.delete:
        raise RequestError(422, "no change", f"upsert or delete at least one {entity}", field=None)
    topic, seen = settings.topic(TOPICS[entity]), set[str]()
    records = []
    for field, id_, given in _changes(batch):
        if len(id_.encode()) > MAX_ID_BYTES:
            raise RequestError(
                422,
                f"{len(id_.encode())} bytes, an id has at most {MAX_ID_BYTES}",
                cure_for(f"{entity}_id"),
                field=field,
            )
        if id_ in seen:
            raise RequestError(
                422,
                f"{id_!r:.80} is named twice: which is to count?",
                "send each id once in a batch",
                field=field,
            )
        seen.add(id_)
        value = None if given is None else _value(field, given, entity, declaration)
        records.append(OutboxRecord(topic, id_.encode(), value))
    return Changes(records, len(batch.upsert), len(batch.delete))


def _changes(batch: EntityBatch) -> Iterable[tuple[str, str, EntityUpsert | None]]:
    for at, given in enumerate(batch.upsert):
        yield f"upsert[{at}].id", given.id, given
    for at, id_ in enumerate(batch.delete):
        yield f"delete[{at}]", id_, None


def _value(field: str, given: EntityUpsert, entity: EntityName, declaration: Declaration) -> bytes:
    record = Entity(id=given.id, attributes=given.attributes)
    attributes = field.replace(".id", ".attributes")
    try:
        check_entity(declaration, entity, record)
    except EventError as error:
        raise RequestError(
            422,
            str(error),
            "send it in the form that the log declares",
            field=f"{attributes}.{error.field}",
        ) from error
    value = encode(record)
    if len(value) > MAX_EVENT_BYTES:
        raise RequestError(
            422,
            f"it has {len(value)} bytes, Kafka takes {MAX_EVENT_BYTES} of us",
            "keep large data elsewhere and send its id",
            field=attributes,
        )
    return value
