"""The schemas of everything that travels on Kafka.

JSON, one event a message; ids are text, times are milliseconds since the epoch in UTC.
Unknown fields pass, missing or mistyped ones are refused (:func:`decode_event`).
"""

from __future__ import annotations

from typing import Any

import msgspec

MAX_ID_BYTES = 256
# 1973-03-03 in milliseconds: a smaller time is one that was written in seconds
SECONDS_LIMIT = 100_000_000_000


class Impression(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An item was shown to a user."""

    request_id: str
    user_id: str
    item_id: str
    ts: int
    position: int | None = None
    score: float | None = None
    variant: str | None = None
    model_version: str | None = None
    propensity: float | None = None
    context: dict[str, Any] | None = None


class Click(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A user acted on an item."""

    event_id: str
    user_id: str
    item_id: str
    ts: int
    request_id: str | None = None
    action: str | None = None
    value: float | None = None


class TimeMark(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing older than ``time_mark`` follows in this partition."""

    time_mark: int


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes of an item or a user: the row of the topics ``items`` and ``users``.

    ``attributes`` maps a field name to a text or a list of texts (static fields are categories).
    """

    id: str
    attributes: dict[str, str | list[str]]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A refused record: its bytes, untouched (base64 in JSON), where it lay, and why."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: bytes
    detail: str | None = None


class VersionAnnounced(msgspec.Struct, frozen=True, tag="version", kw_only=True):
    """A new current version of a channel lies in the model store."""

    channel: str
    version: str
    created_ms: int


class Delta(msgspec.Struct, frozen=True, tag="delta", kw_only=True):
    """Fresh rows, encoded with the dense weights of ``base_version``.

    The offset of the record on ``model.updates`` is the delta's number. Arrays are little-endian
    float32, row-major: ``user_rows`` [n, R], ``item_vectors`` [m, W], ``item_rows`` [m, D] (the id
    embeddings that user histories look up). ``*_ts`` is the event time of the newest sample behind
    each row.
    """

    channel: str
    base_version: str
    created_ms: int
    user_ids: list[str]
    user_ts: list[int]
    user_rows: bytes
    item_ids: list[str]
    item_ts: list[int]
    item_vectors: bytes
    item_rows: bytes


Update = VersionAnnounced | Delta
