"""Rows of the online store, in the layout that Feast gives it, without loading Feast.

Importing Feast costs a process 600 MB (it loads PyTorch and pandas) and many seconds. Server and
writer need no more of it than one row by its id, so they read and write the tables themselves.
Feast applies the repository (:mod:`features.feast_repo`), and reads the same rows with its own
tools: a test compares the two, both ways and for both stores.

The layout, of Feast's ``entity_key_serialization_version`` 3:

- **Key**: the number of join keys, each name and each value with type and length; numbers are
  little-endian, 32 bits.
- **Value**: a protobuf ``Value`` whose field 1 holds the bytes.
- **SQLite**: a table ``PROJECT_VIEW`` with a row a feature; event times are whole seconds.
- **Redis**: a hash at ``key + PROJECT``. Its fields are ``_ts:VIEW`` (a protobuf ``Timestamp``) and
  for each feature the MurmurHash3 of ``VIEW:FEATURE``.
"""

from __future__ import annotations

import json
import sqlite3
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from features.declaration import Entity
from features.feast_repo import APPLIED, PROJECT, ROW, folder, view_name
from settings.errors import StorageError
from settings.settings import Settings

if TYPE_CHECKING:
    from redis import Redis

_STRING = 2  # of Feast's ValueType
_BYTES_FIELD = b"\x0a"  # protobuf: field 1, length-delimited
# ms; a day later no datetime could hold it, in some time zone
LATEST_MS = 253_402_214_400_000
# a store that failed is left alone for so long: a request must not wait for each time-out
_REST_S = 1.0


class OnlineTable(ABC):
    """Packed rows of users or of items in the online store, by id."""

    @abstractmethod
    def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The packed row of each id; None where there is none.

        Raises:
            StorageError: the store does not answer, or holds something else.
        """

    @abstractmethod
    def write(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        """Put (id, event time in ms, packed row), replacing what is there; one transaction.

        Raises:
            StorageError: the store does not answer, or another process writes to it.
        """


def online_table(
    settings: Settings, entity: Entity, *, timeout_s: float | None = None
) -> OnlineTable:
    """The rows of one entity in the store that the settings name. It connects at its first use.

    Args:
        settings: which store, and where the state folder is.
        entity: whose rows.
        timeout_s: how long a call may wait for a lock or for the network; None: 5 s.
    """
    wait = 5.0 if timeout_s is None else timeout_s
    if settings.feast.online_store == "redis":
        return _RedisTable(settings, entity, wait)
    return _SqliteTable(settings, entity, wait)


def entity_key(entity: Entity, id_: str) -> bytes:
    """The key of a row.

    >>> entity_key("item", "7").hex(" ", 4)
    '01000000 02000000 07000000 6974656d 5f696402 00000001 00000037'
    """
    name, value = f"{entity}_id".encode(), id_.encode()
    return b"".join(
        (
            struct.pack("<III", 1, _STRING, len(name)),
            name,
            struct.pack("<II", _STRING, len(value)),
            value,
        )
    )


def pack_value(row: bytes) -> bytes:
    """A row as a protobuf ``Value``."""
    return _BYTES_FIELD + _varint(len(row)) + row


def unpack_value(data: bytes) -> bytes | None:
    """The row in a protobuf ``Value``; None: an empty one.

    Raises:
        StorageError: it holds no bytes, or not all of them.
    """
    if not data:
        return None
    # a varint: seven bits a byte, the lowest first; the last byte is below 128
    end = next((at for at in range(1, len(data)) if data[at] < 0x80), 0)
    size = sum((byte & 0x7F) << 7 * at for at, byte in enumerate(data[1 : end + 1]))
    if data[:1] != _BYTES_FIELD or not end or len(data) != end + 1 + size:
        raise StorageError(
            f"a row of {len(data)} bytes is no packed feature row: it was damaged, or another"
            " program wrote it; empty the store with `headrace reset`"
        )
    return data[end + 1 :] or None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


class _SqliteTable(OnlineTable):
    def __init__(self, settings: Settings, entity: Entity, timeout_s: float) -> None:
        self._path = folder(settings) / "online.db"
        self._applied = folder(settings) / APPLIED
        self._entity: Entity = entity
        self._timeout_s = timeout_s
        name = f'"{PROJECT}_{view_name(entity)}"'
        self._one = f"SELECT value FROM {name} WHERE entity_key = ? AND feature_name = '{ROW}'"  # noqa: S608 - all names are ours
        self._upsert = (
            f"INSERT INTO {name} (entity_key, feature_name, value, event_ts)"  # noqa: S608
            f" VALUES (?, '{ROW}', ?, ?) ON CONFLICT(entity_key, feature_name)"
            " DO UPDATE SET value = excluded.value, event_ts = excluded.event_ts"
        )
        # a connection may be used by one thread at a time
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None

    def read(self, ids: Sequence[str]) -> list[bytes | None]:
        if self._connection is None and not self._applied.exists():
            return [None] * len(ids)  # nothing is written yet
        with self._lock:
            try:
                execute = self._connected().execute
                found = [
                    execute(self._one, (entity_key(self._entity, id_),)).fetchone() for id_ in ids
                ]
            except sqlite3.Error as error:
                raise self._failed(error) from error
        return [None if row is None else unpack_value(row[0]) for row in found]

    def write(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        data = [
            (entity_key(self._entity, id_), pack_value(packed), _local_seconds(ts))
            for id_, ts, packed in rows
        ]
        with self._lock:
            try:
                connection = self._connected()
                with connection:
                    connection.executemany(self._upsert, data)
            except sqlite3.Error as error:
                raise self._failed(error) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # mode=rw: a file that is missing is an error, not a new and empty store
            self._connection = sqlite3.connect(
                f"{self._path.as_uri()}?mode=rw",
                uri=True,
                timeout=self._timeout_s,
                check_same_thread=False,
            )
        return self._connection

    def _failed(self, error: sqlite3.Error) -> StorageError:
        if self._connection is not None:
            # the file may be put right meanwhile: look at it afresh
            self._connection.close()
            self._connection = None
        return StorageError(
            f"the feature store {self._path} failed: {error}. Is the disk full, or does another"
            " headrace write to this state folder?"
        )


def _local_seconds(ts: int) -> int:
    """The time as Feast stores it: whole seconds, and UTC taken for the local time."""
    return int(datetime.fromtimestamp(ts / 1000, tz=UTC).replace(tzinfo=None).timestamp())


class _RedisTable(OnlineTable):
    def __init__(self, settings: Settings, entity: Entity, timeout_s: float) -> None:
        import mmh3  # noqa: PLC0415 - not needed with SQLite
        from redis.exceptions import RedisError  # noqa: PLC0415

        view = view_name(entity)
        self._where = settings.feast.redis
        self._entity: Entity = entity
        self._timeout_s = timeout_s
        self._field = struct.pack("<I", mmh3.hash(f"{view}:{ROW}", signed=False))
        self._ts_field = f"_ts:{view}".encode()
        self._error = RedisError
        self._client: Redis | None = None
        self._resting_until = 0.0

    def read(self, ids: Sequence[str]) -> list[bytes | None]:
        with self._connected().pipeline(transaction=False) as pipe:
            for id_ in ids:
                pipe.hget(self._key(id_), self._field)  # type: ignore[arg-type]  # bytes are fine
            found = self._execute(pipe)
        return [None if value is None else unpack_value(value) for value in found]

    def write(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        with self._connected().pipeline(transaction=False) as pipe:
            for id_, ts, packed in rows:
                fields = {self._ts_field: _timestamp(ts), self._field: pack_value(packed)}
                pipe.hset(self._key(id_), mapping=fields)  # type: ignore[arg-type]
            self._execute(pipe)

    def _key(self, id_: str) -> bytes:
        return entity_key(self._entity, id_) + PROJECT.encode()

    def _execute(self, pipe: Any) -> list[Any]:  # noqa: ANN401 - redis-py's pipelines have no public type
        try:
            result: list[Any] = pipe.execute()
        except self._error as error:
            self._resting_until = time.monotonic() + _REST_S
            raise self._failed(error) from error
        return result

    def _connected(self) -> Redis:
        if time.monotonic() < self._resting_until:
            raise self._failed("it failed within the last second")
        if self._client is None:
            from redis import Redis  # noqa: PLC0415

            host, port, options = _connection_options(self._where)
            waits = {"socket_timeout": self._timeout_s, "socket_connect_timeout": self._timeout_s}
            self._client = Redis(host=host, port=port, **(waits | options))
        return self._client

    def _failed(self, error: object) -> StorageError:
        return StorageError(
            f"the feature store on Redis at {self._where} failed: {error}. Is Redis running, and is"
            " feast.redis right (HEADRACE_FEAST__REDIS)?"
        )


def _timestamp(ts: int) -> bytes:
    """A protobuf ``Timestamp``: seconds, and nanoseconds where there are any."""
    seconds, rest = divmod(ts, 1000)
    out = b"\x08" + _varint(seconds) if seconds else b""
    return out + (b"\x10" + _varint(rest * 1_000_000) if rest else b"")


def _connection_options(text: str) -> tuple[str, int, dict[str, Any]]:
    """Host, port and options of a connection string as Feast reads it.

    >>> _connection_options("redis:6379,ssl=true,password=x")
    ('redis', 6379, {'ssl': True, 'password': 'x'})
    """
    host, port, options = "localhost", 6379, dict[str, Any]()
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals:
            try:
                options[name] = json.loads(value)
            except json.JSONDecodeError:
                options[name] = value
        else:
            host, _, given = part.partition(":")
            port = int(given or port)
    return host, port, options
