"""The Feast repository: entities, views and stores, rendered from the declaration.

A view (``user_features``, ``item_features``) holds one feature of type Bytes, ``row``: the JSON
record of the topic as the job wrote it, its exact time ``ts`` inside. One packed feature is five to
ten times as fast to write and read as a feature per column, and Feast's own event time is kept in
whole seconds by SQLite. What a row holds is listed in the view's tags.

The repository is in ``STATE/feast``. Its ``feature_store.yaml`` is for Feast's own tools too::

    feast -c .headrace/feast feature-views list

Feast takes seconds and 600 MB to import, so it is loaded to apply the repository and to tear it
down, and by nothing else; rows are read and written by :mod:`features.online_table`.
``python -m features.feast_repo SETTINGS`` applies it.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from features.declaration import ENTITIES, Declaration, Entity
from features.declared import declared_features
from settings.errors import HeadraceError, StorageError
from settings.settings import Settings

log = logging.getLogger(__name__)

PROJECT = "headrace"
ROW = "row"
_FILE = "feature_store.yaml"
APPLIED = "applied.json"
_MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"


def view_name(entity: Entity) -> str:
    """The name of the entity's view.

    >>> view_name("user")
    'user_features'
    """
    return f"{entity}_features"


def folder(settings: Settings) -> Path:
    """The folder of the repository."""
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


def ensure_applied(settings: Settings, declaration: Declaration) -> None:
    """Apply the Feast repository unless it is applied already; in its own process, which then ends.

    Raises:
        StorageError: it failed; the text is Feast's.
    """
    if _is_applied(settings, declaration):
        return
    path = folder(settings)
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(suffix=".json", dir=path) as file:
        file.write(settings.to_json())
        file.flush()
        command = [sys.executable, "-m", "features.feast_repo", file.name]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no error text"]
        raise StorageError(f"the feature repository {path} could not be applied: {said[-1]}")


def apply_repository(settings: Settings, declaration: Declaration) -> None:
    """Apply the repository in this process, unless it is. It loads Feast.

    Raises:
        StorageError: the online store cannot be opened or used.
    """
    asked = os.environ.get(_MULTIPROCESS)
    from feast import FeatureStore  # noqa: PLC0415 - takes seconds

    if asked is None:
        # Feast's import asks for Prometheus' mode for several processes, which cannot remove labels
        os.environ.pop(_MULTIPROCESS, None)
    path = folder(settings)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _is_applied(settings, declaration):
            return
        (path / _FILE).write_text(json.dumps(configuration(settings), indent=1) + "\n")
        if settings.feast.online_store == "sqlite":
            _write_ahead(path / "online.db")
        with _explained(settings):
            FeatureStore(repo_path=str(path)).apply(_definitions(declaration))
        (path / APPLIED).write_text(_wanted(settings, declaration))
        log.info("feature repository applied in %s", path)


def teardown(settings: Settings) -> None:
    """Delete all rows and the repository's own record; the folder may then be removed.

    Raises:
        StorageError: the store does not answer.
    """
    from feast import FeatureStore  # noqa: PLC0415 - takes seconds

    with _explained(settings):
        FeatureStore(repo_path=str(folder(settings))).teardown()
    (folder(settings) / APPLIED).unlink()


def _wanted(settings: Settings, declaration: Declaration) -> str:
    """What the file says that records an application of this repository."""
    return json.dumps({"config": configuration(settings), "rows": _contents(declaration)}, indent=1)


def _is_applied(settings: Settings, declaration: Declaration) -> bool:
    applied = folder(settings) / APPLIED
    return applied.exists() and applied.read_text() == _wanted(settings, declaration)


def _contents(declaration: Declaration) -> dict[Entity, list[str]]:
    return {e: [f.name for f in declaration.of_entity(e)] for e in ENTITIES}


def _definitions(declaration: Declaration) -> list[Any]:
    """Everything to apply."""
    from feast import Entity as FeastEntity  # noqa: PLC0415 - takes seconds
    from feast import FeatureView, Field, FileSource, PushSource, ValueType  # noqa: PLC0415
    from feast.types import Bytes, String  # noqa: PLC0415

    objects: list[Any] = []
    for entity, names in _contents(declaration).items():
        key = FeastEntity(name=entity, join_keys=[f"{entity}_id"], value_type=ValueType.STRING)
        source = PushSource(
            name=f"features_{entity}",
            # Feast asks for a batch source; the history is in the topic, so this file never is
            batch_source=FileSource(
                path=f"{view_name(entity)}.parquet", timestamp_field="event_timestamp"
            ),
        )
        view = FeatureView(
            name=view_name(entity),
            entities=[key],
            ttl=None,
            schema=[Field(name=f"{entity}_id", dtype=String), Field(name=ROW, dtype=Bytes)],
            source=source,
            online=True,
            tags={"log": declaration.name, "row": " ".join(("ts", *names))},
        )
        objects += [key, source, view]
    return objects


def _write_ahead(path: Path) -> None:
    """Make readers independent of the writer; the file keeps the setting."""
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
    finally:
        connection.close()


@contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    from redis.exceptions import RedisError  # noqa: PLC0415 - only with Feast

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


if __name__ == "__main__":
    try:
        given = Settings.read(Path(sys.argv[1]))
        apply_repository(given, declared_features(given))
    except HeadraceError as failure:
        sys.exit(str(failure))
