"""A server over real HTTP with a real broker, feature store and model store, all small."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from kafka import KafkaProducer
from prometheus_client.parser import text_string_to_metric_families

from features.catalogue import Catalogue
from features.feast_repo import apply_repository
from features.logs.movielens_features import MOVIELENS
from features.model_inputs import RawRows, item_columns, model_spec, never_seen, user_columns
from features.online_table import online_table
from inttower.models.inttower import IntTower, IntTowerConfig
from inttower.publish.bundle import write_bundle
from inttower.publish.snapshot import ModelSnapshot, contents
from inttower.publish.store import ModelStore
from serving.http.server import HttpServer
from settings.settings import Settings
from streaming.events import Delta, Entity, VersionAnnounced, encode
from streaming.kafka.client import create_topics, producer
from streaming.kafka.span import read_span, span
from streaming.kafka.topics import ITEMS, MODEL_UPDATES, USERS
from tests.conftest import free_ports

USER_IDS = [f"u{n}" for n in range(12)]
ITEM_IDS = [f"i{n}" for n in range(40)]
NOW = 1_700_000_000_000
_GENRES = ("Drama", "Comedy", "War")


def catalogue() -> Catalogue:
    """Attributes of every user and item, and of one item that no model knows."""
    made = Catalogue(MOVIELENS)
    for kind, entity in entities():
        made.apply(kind, entity.id.encode(), encode(entity))
    return made


def entities() -> Iterator[tuple[Any, Entity]]:
    for n, user in enumerate(USER_IDS):
        statics: dict[str, str | list[str]] = {"gender": "FM"[n % 2], "age": "25"}
        yield "user", Entity(id=user, attributes=statics)
    for n, item in enumerate([*ITEM_IDS, "newcomer"]):
        genres = list(_GENRES[: n % 3 + 1])
        yield "item", Entity(id=item, attributes={"genres": genres, "decade": "1990"})


def user_raw(n: int) -> tuple[Any, ...]:
    """Raw features of user n: counts, expected, first and last time, liked, of this sitting."""
    last = NOW - 10**6 * (n + 1)
    liked = (ITEM_IDS[n], ITEM_IDS[n + 1])
    return (n + 3, n % 4, n / 3, NOW - 10**9, last, liked, last, n + 1, n % 2)


def item_raw(n: int) -> tuple[Any, ...]:
    return (n + 1, n % 5, NOW - 10**8, NOW - 10**5)


class Models:
    """A small trained IntTower, and what versions of it hold."""

    def __init__(self) -> None:
        self.catalogue = catalogue()
        self.spec = model_spec(MOVIELENS)
        self.items = item_columns(
            MOVIELENS, RawRows(ITEM_IDS, [item_raw(n) for n in range(40)]), self.catalogue
        )
        rng = np.random.default_rng(0)
        users, items = rng.integers(0, 12, 600), rng.integers(0, 40, 600)
        self.columns = {
            **self.user_columns(users.tolist()),
            **self.item_columns(items.tolist()),
        }
        self.labels = ((users + items) % 3 > 0).astype(np.float32)

    def user_columns(self, users: Sequence[int]) -> dict[str, Any]:
        raw = RawRows([USER_IDS[n] for n in users], [user_raw(n) for n in users])
        return user_columns(MOVIELENS, raw, self.catalogue, np.full(len(users), NOW))

    def item_columns(self, items: Sequence[int]) -> dict[str, Any]:
        raw = RawRows([ITEM_IDS[n] for n in items], [item_raw(n) for n in items])
        return item_columns(MOVIELENS, raw, self.catalogue)

    def train(self, seed: int) -> IntTower:
        """A model of its own: other seeds give clearly other scores."""
        config = IntTowerConfig(hidden=(16, 8), heads=2, head_size=4, width=8, fm_rank=4)
        model = IntTower(self.spec, config, seed=seed)
        model.fit(model.encode(self.columns, admit=True), self.labels, epochs=1, batch_size=64)
        return model

    def held(self, model: IntTower) -> ModelSnapshot:
        return contents(model, self.items)

    def user_columns_of(self, user: str) -> dict[str, Any]:
        """Columns of one user as the server must see them, also of one that it never saw."""
        if user in USER_IDS:
            return self.user_columns([USER_IDS.index(user)])
        raw = RawRows([user], [never_seen(MOVIELENS, "user")])
        return user_columns(MOVIELENS, raw, self.catalogue, np.array([NOW]))


@pytest.fixture(scope="session")
def models() -> Models:
    return Models()


@pytest.fixture(scope="session")
def model(models: Models) -> IntTower:
    return models.train(seed=1)


@dataclass
class World:
    """A running server and everything around it."""

    settings: Settings
    models: Models
    store: ModelStore
    kafka: KafkaProducer
    server: HttpServer
    http: httpx.Client
    thread: threading.Thread = field(init=False)

    def publish(
        self,
        model: IntTower,
        version: str,
        *,
        channel: str = "champion",
        parent: str | None = None,
        auc: float | None = None,
        updates_offset: int = 0,
        damage: Callable[[Path], object] | None = None,
    ) -> None:
        """Put a version into the store and announce it."""
        with self.store.draft(channel) as folder:
            write_bundle(
                folder,
                model,
                self.models.held(model),
                {name: column[:4] for name, column in self.models.columns.items()},
                version=version,
                channel=channel,
                created_ms=time.time_ns() // 10**6,
                parent=parent,
                updates_offset=updates_offset,
                metrics={} if auc is None else {"window": {"online": {"auc": auc}}},
            )
            if damage is not None:
                damage(folder)
            self.store.publish(channel, version, folder)
        announced = VersionAnnounced(
            channel=channel, version=version, created_ms=time.time_ns() // 10**6
        )
        self.send_update(msgspec.json.encode(announced))

    def send_update(self, value: bytes | None) -> int:
        """A record on model.updates; its offset."""
        sent = self.kafka.send(self.settings.topic(MODEL_UPDATES), value, b"champion")
        return int(sent.get(10).offset)

    def send_delta(
        self,
        version: str,
        *,
        users: dict[str, Any] | None = None,
        items: dict[str, tuple[Any, Any]] | None = None,
        ts: int = NOW,
        channel: str = "champion",
    ) -> int:
        """A delta of user rows, and of item vectors with item rows; its number."""
        users, items = users or {}, items or {}
        delta = Delta(
            channel=channel,
            base_version=version,
            created_ms=time.time_ns() // 10**6,
            user_ids=list(users),
            user_ts=[ts] * len(users),
            user_rows=b"".join(np.asarray(r, "<f4").tobytes() for r in users.values()),
            item_ids=list(items),
            item_ts=[ts] * len(items),
            item_vectors=b"".join(np.asarray(v, "<f4").tobytes() for v, _ in items.values()),
            item_rows=b"".join(np.asarray(r, "<f4").tobytes() for _, r in items.values()),
        )
        return self.send_update(msgspec.json.encode(delta))

    def rank(self, user: str = "u1", **body: object) -> dict[str, Any]:
        """A ranking that must succeed."""
        whole = {"user_id": user, "candidates": "all", "ts": NOW, **body}
        answer = self.http.post("/v1/rank", json=whole)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    def versions(self, channel: str = "champion") -> dict[str, Any]:
        result: dict[str, Any] = self.http.get("/v1/versions").json()["channels"][channel]
        return result

    def serving(self, channel: str = "champion") -> tuple[str, int] | None:
        """The version and delta that serve."""
        held = self.versions(channel)["serves"]
        return held and (held["version"], held["delta"])

    def metric(self, name: str, **labels: str) -> float:
        """A sample of /metrics; 0 if it is not there."""
        text = self.http.get("/metrics").text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and sample.labels == labels
        )

    def read(self, topic: str) -> list[dict[str, Any]]:
        """Everything that is on a topic now, decoded; deletions are left out."""
        records = read_span(self.settings, *span(self.settings, [topic]))
        return [msgspec.json.decode(record.value) for record in records if record.value]

    def start(self) -> None:
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        self.until(lambda: self.http.get("/healthz").is_success)

    def stop(self) -> None:
        self.server.stop()
        self.thread.join(20)
        assert not self.thread.is_alive()
        self.http.close()

    @staticmethod
    def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)


def fill_features(settings: Settings) -> None:
    """Feature rows of the users, as the writer would have left them."""
    names = [f.name for f in MOVIELENS.of_entity("user")]
    rows = []
    for n, user in enumerate(USER_IDS):
        values = dict(zip(names, user_raw(n), strict=True))
        liked = [f"{NOW - at:013d}{item}" for at, item in enumerate(values["user_liked"])]
        row = {"user_id": user, "ts": NOW - n, **values, "user_liked": [*liked, None]}
        rows.append((user, NOW - n, msgspec.json.encode(row)))
    apply_repository(settings, MOVIELENS)
    online_table(settings, "user").write(rows)


@contextmanager
def worlds(base: Settings, models: Models) -> Iterator[Callable[..., World]]:
    """Makes worlds whose servers have been made and not started; ended at the end."""
    made: list[World] = []

    def make(**serving: object) -> World:
        settings = base.with_changes(serving=serving)
        if not made:
            create_topics(settings)
            fill_features(settings)
        kafka = producer(settings)
        topics = {"user": settings.topic(USERS), "item": settings.topic(ITEMS)}
        for kind, entity in entities() if not made else ():
            kafka.send(topics[kind], encode(entity), entity.id.encode())
        kafka.flush()
        http = httpx.Client(base_url=f"http://127.0.0.1:{settings.serving.port}", timeout=20)
        store = ModelStore(settings.store_url)
        made.append(World(settings, models, store, kafka, HttpServer(settings), http))
        return made[-1]

    yield make
    for world in made:
        if hasattr(world, "thread") and world.thread.is_alive():
            world.stop()
        world.kafka.close()


@pytest.fixture
def make_world(cluster: Settings, models: Models) -> Iterator[Callable[..., World]]:
    """Makes worlds for one test."""
    with worlds(cluster, models) as make:
        yield make


@pytest.fixture
def world(make_world: Callable[..., World], model: IntTower) -> World:
    """A server that serves version 000001 of champion and frozen, to half of the users each."""
    made = make_world()
    made.start()
    made.publish(model, "000001", auc=0.8)
    made.until(lambda: made.serving() == ("000001", -1))
    return made


@pytest.fixture(scope="module")
def shared(
    request: pytest.FixtureRequest,
    broker: Settings,
    tmp_path_factory: pytest.TempPathFactory,
    models: Models,
    model: IntTower,
) -> Iterator[World]:
    """A world as above for all tests of a module: cheap, for those that get along."""
    prefix = request.module.__name__.rpartition(".")[2]
    base = broker.with_changes(
        kafka={"topic_prefix": f"{prefix}."},
        serving={"port": free_ports(1)[0]},
        state=tmp_path_factory.mktemp(prefix),
    )
    with worlds(base, models) as make:
        made = make(features_logged_share=0.0)
        made.start()
        made.publish(model, "000001", auc=0.8)
        made.until(lambda: made.serving() == ("000001", -1))
        yield made
