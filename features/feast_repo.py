"""The Feast repository: entities, views and stores, rendered from the declaration.

A view (``user_features``, ``item_features``) holds one feature of type Bytes, ``row``: the JSON
record of the topic as the job wrote it, its exact time ``ts`` inside. One packed feature is five to
ten times as fast to write and read as a feature per column, and Feast's own event time is kept in
whole seconds by SQLite. What a row holds is listed in the view's tags.

The repository lies in ``STATE/feast``. Its ``feature_store.yaml`` is for Feast's own tools too::

    feast -c .headrace/feast feature-views list

Feast takes seconds to import: only a call that needs it does so, never the import of this module.
"""

from __future__ import annotations

import fcntl
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from features.declaration import ENTITIES, Declaration, Entity
from settings.errors import StorageError
from settings.settings import Settings

if TYPE_CHECKING:
    from feast import FeatureView, RepoConfig
    from feast.infra.provider import Provider
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey

log = logging.getLogger(__name__)

PROJECT = "headrace"
ROW = "row"
_FILE = "feature_store.yaml"
_APPLIED = "applied.json"


def view_name(entity: Entity) -> str:
    """The name of the entity's view.

    >>> view_name("user")
    'user_features'
    """
    return f"{entity}_features"


def folder(settings: Settings) -> Path:
    """Where the repository lies."""
    return settings.state.absolute() / "feast"


def configuration(settings: Settings) -> dict[str, Any]:
    """What ``feature_store.yaml`` says."""
    if settings.feast.online_store == "redis":
        # rows of one instant replace one another, and the writer keeps the order of time itself
        store = {
            "type": "redis",
            "connection_string": settings.feast.redis,
            "skip_dedup": True,
        }
    else:
        store = {"type": "sqlite", "path": str(folder(settings) / "online.db")}
    return {
        "project": PROJECT,
        "provider": "local",
        # 0: never reloaded, so no request waits for it
        "registry": {"path": str(folder(settings) / "registry.db"), "cache_ttl_seconds": 0},
        "online_store": store,
        "offline_store": {"type": "file"},
        "entity_key_serialization_version": 3,
    }


class Repository:
    """An applied repository, ready to read and write packed rows.

    Args:
        settings: which online store, and where the state folder is.
        declaration: what the views hold.

    Raises:
        StorageError: the online store cannot be opened or used.
    """

    def __init__(self, settings: Settings, declaration: Declaration) -> None:
        from feast import FeatureStore  # noqa: PLC0415 - takes seconds
        from feast.infra.provider import get_provider  # noqa: PLC0415

        path = folder(settings)
        path.mkdir(parents=True, exist_ok=True)
        objects, self._views = _definitions(declaration)
        wanted = json.dumps(
            {"config": configuration(settings), "rows": _contents(declaration)}, indent=1
        )
        # writer and server start at the same time: one of them applies
        with (path / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            applied = path / _APPLIED
            if not applied.exists() or applied.read_text() != wanted:
                (path / _FILE).write_text(json.dumps(configuration(settings), indent=1) + "\n")
                if settings.feast.online_store == "sqlite":
                    _write_ahead(path / "online.db")
                with _explained(settings):
                    FeatureStore(repo_path=str(path)).apply(objects)
                applied.write_text(wanted)
                log.info("feature repository applied in %s", path)
            self._config = FeatureStore(repo_path=str(path)).config
        self._settings = settings
        self._provider = get_provider(self._config)

    def teardown(self) -> None:
        """Delete all rows and the repository's own record; the folder may then be removed.

        Raises:
            StorageError: the store does not answer.
        """
        from feast import FeatureStore  # noqa: PLC0415 - takes seconds

        with _explained(self._settings):
            FeatureStore(repo_path=str(folder(self._settings))).teardown()
        (folder(self._settings) / _APPLIED).unlink()

    def table(self, entity: Entity) -> OnlineTable:
        """The rows of one view."""
        return OnlineTable(
            self._settings, self._config, self._provider, self._views[entity], entity
        )


class OnlineTable:
    """Packed rows of users or of items in the online store, by id."""

    def __init__(
        self,
        settings: Settings,
        config: RepoConfig,
        provider: Provider,
        view: FeatureView,
        entity: Entity,
    ) -> None:
        from feast.protos.feast.types.EntityKey_pb2 import EntityKey  # noqa: PLC0415
        from feast.protos.feast.types.Value_pb2 import Value  # noqa: PLC0415

        self._settings = settings
        self._config = config
        self._provider = provider
        self._view = view
        self._join_key = f"{entity}_id"
        self._entity_key = EntityKey
        self._value = Value

    def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The packed row of each id; None where there is none.

        Raises:
            StorageError: the store does not answer.
        """
        keys = [self._key(id_) for id_ in ids]
        with _explained(self._settings):
            # Redis appends to the list of features that it is given: a fresh one each time
            found = self._provider.online_read(self._config, self._view, keys, [ROW])
        # SQLite tells of a missing key by None, Redis by an empty value
        return [values[ROW].bytes_val or None if values else None for _, values in found]

    def write(self, rows: Iterable[tuple[str, int, bytes]]) -> None:
        """Put (id, event time in ms, packed row), replacing what is there; one transaction.

        Raises:
            StorageError: the store does not answer, or another process writes to it.
        """
        value = self._value
        data = [
            (
                self._key(id_),
                {ROW: value(bytes_val=packed)},
                datetime.fromtimestamp(ts / 1000, tz=UTC),
                None,
            )
            for id_, ts, packed in rows
        ]
        with _explained(self._settings):
            self._provider.online_write_batch(self._config, self._view, data, None)

    def _key(self, id_: str) -> EntityKey:
        return self._entity_key(
            join_keys=[self._join_key], entity_values=[self._value(string_val=id_)]
        )


def _contents(declaration: Declaration) -> dict[Entity, list[str]]:
    return {e: [f.name for f in declaration.of_entity(e)] for e in ENTITIES}


def _definitions(declaration: Declaration) -> tuple[list[Any], dict[Entity, FeatureView]]:
    """Everything to apply, and the views by entity."""
    from feast import Entity as FeastEntity  # noqa: PLC0415 - takes seconds
    from feast import FeatureView, Field, FileSource, PushSource, ValueType  # noqa: PLC0415
    from feast.types import Bytes, String  # noqa: PLC0415

    objects: list[Any] = []
    views: dict[Entity, FeatureView] = {}
    for entity, names in _contents(declaration).items():
        key = FeastEntity(name=entity, join_keys=[f"{entity}_id"], value_type=ValueType.STRING)
        source = PushSource(
            name=f"features_{entity}",
            # Feast asks for a batch source; history lies in the topic, so this file never is
            batch_source=FileSource(
                path=f"{view_name(entity)}.parquet", timestamp_field="event_timestamp"
            ),
        )
        views[entity] = FeatureView(
            name=view_name(entity),
            entities=[key],
            ttl=None,
            schema=[Field(name=f"{entity}_id", dtype=String), Field(name=ROW, dtype=Bytes)],
            source=source,
            online=True,
            tags={"log": declaration.name, "row": " ".join(("ts", *names))},
        )
        objects += [key, source, views[entity]]
    return objects, views


def _write_ahead(path: Path) -> None:
    """Make readers independent of the writer; the file keeps the setting."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(
            f"the feature store {folder(settings) / 'online.db'} failed: {error}. Is the disk full,"
            " or does another headrace write to this state folder?"
        ) from error
    except RedisError as error:
        raise StorageError(
            f"the feature store on Redis at {settings.feast.redis} failed: {error}. Is Redis"
            " running, and is feast.redis right (HEADRACE_FEAST__REDIS)?"
        ) from error
