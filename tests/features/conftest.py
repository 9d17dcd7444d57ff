"""Feature stores to test on: Feast with SQLite, and with Redis where its server is installed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import msgspec
import pytest
import redis as redis_client

from features.declaration import Entity
from features.feast_repo import apply_repository, teardown
from features.logs.movielens_features import MOVIELENS
from settings.settings import Settings

RowMaker = Callable[..., bytes]


def _row(entity: Entity, id_: str, ts: int, count: int = 1) -> bytes:
    """A record of features.user or features.item, as the job writes it."""
    values: dict[str, object] = {f"{entity}_id": id_, "ts": ts}
    for feature in MOVIELENS.of_entity(entity):
        values[feature.name] = count
        if feature.aggregate == "recent_items":
            values[feature.name] = [f"{ts:013d}liked", None]
    return msgspec.json.encode(values)


@pytest.fixture
def row() -> RowMaker:
    """Makes a record: ``row(entity, id, ts, count)``."""
    return _row


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A Redis server of our own; skips where the program is not installed."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    server = subprocess.Popen(
        [program, "--port", str(port), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    try:
        client = redis_client.Redis(port=port)
        deadline = time.monotonic() + 10
        while True:
            try:
                client.ping()
                break
            except redis_client.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        yield port
        client.close()
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(params=["sqlite", "redis"])
def store_settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    """Settings of an empty feature store, once for each kind."""
    kind: Literal["sqlite", "redis"] = request.param
    settings = Settings(state=tmp_path).with_changes(feast={"online_store": kind})
    if kind == "redis":
        port: int = request.getfixturevalue("redis_port")
        settings = settings.with_changes(feast={"redis": f"localhost:{port}"})
    apply_repository(settings, MOVIELENS)
    yield settings
    teardown(settings)
