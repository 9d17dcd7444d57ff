"""One version at a time, whatever is published meanwhile; and following it to the letter."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
from kafka import KafkaConsumer
from kafka.errors import KafkaConnectionError
from numpy.typing import NDArray
from scipy.special import expit

from inttower.publish.published import score
from inttower.publish.snapshot import ModelSnapshot
from serving.model.channels import Channel
from serving.model.follower import Follower
from serving.model.live_model import LiveModel
from streaming.events import Entity, encode
from streaming.kafka.topics import ITEMS
from tests.serving.conftest import ITEM_IDS, NOW

if TYPE_CHECKING:
    from inttower.models.inttower import IntTower
    from tests.serving.conftest import World

_Floats = NDArray[np.float32]
Found = tuple[str, int, list[float]]


def scores(
    world: World, held: ModelSnapshot, row: _Floats, vectors: _Floats, item_rows: _Floats
) -> list[float]:
    """What user u3 must get for all items from these rows: nothing of the server's is used."""
    user = held.base.user_vector(
        world.models.user_columns_of("u3"),
        row,
        lambda ids: item_rows[[ITEM_IDS.index(i) for i in ids]],
    )
    found: list[float] = expit(score(user, vectors).astype(np.float64)).tolist()
    return found


@dataclass
class Publisher:
    """Publishes versions and deltas that each change every score, and knows what they are."""

    world: World
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    known: dict[tuple[str, int], list[float]] = field(default_factory=dict)

    def knows(self, version: str, model: IntTower) -> ModelSnapshot:
        """What is in a version."""
        held = self.world.models.held(model)
        row = held.user_rows[list(held.user_ids).index("u3")]
        rows = (held.item_vectors, held.item_rows)
        self.known[version, -1] = scores(self.world, held, row, *rows)
        return held

    def version(self, version: str, model: IntTower, deltas: int) -> None:
        """A version and deltas on top of it; returns when the last is served."""
        held = self.knows(version, model)
        self.world.publish(model, version)
        numbers = [self.delta(version, held, NOW + n) for n in range(deltas)]
        self.world.until(lambda: self.world.serving() == (version, numbers[-1]))

    def delta(self, version: str, held: ModelSnapshot, ts: int) -> int:
        """Another row of the user, and other vectors and rows of all items."""
        shapes = (held.user_rows[0].shape, held.item_vectors.shape, held.item_rows.shape)
        row, vectors, rows = (self.rng.normal(size=s).astype(np.float32) for s in shapes)
        items = dict(zip(ITEM_IDS, zip(vectors, rows, strict=True), strict=True))
        number = self.world.send_delta(version, users={"u3": row}, items=items, ts=ts)
        self.known[version, number] = scores(self.world, held, row, vectors, rows)
        return number


@contextmanager
def hammered(world: World) -> Iterator[list[list[Found]]]:
    """Three clients rank the same for as long as this lasts: what each was told, in order."""
    body = {"user_id": "u3", "candidates": ITEM_IDS, "ts": NOW}
    stopping = threading.Event()

    def rank(found: list[Found]) -> None:
        with httpx.Client(base_url=world.http.base_url, timeout=20) as http:
            while not stopping.is_set():
                answer = http.post("/v1/rank", json=body).json()
                got = {item["item_id"]: item["score"] for item in answer["items"]}
                found.append((answer["version"], answer["delta"], [got[i] for i in ITEM_IDS]))

    clients = [list[Found]() for _ in range(3)]
    threads = [threading.Thread(target=rank, args=(found,)) for found in clients]
    for thread in threads:
        thread.start()
    try:
        yield clients
    finally:
        stopping.set()
        for thread in threads:
            thread.join()


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads take turns as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switches")
def test_a_request_sees_one_version(shared: World, model: IntTower) -> None:
    publisher = Publisher(shared)
    publisher.knows("000001", model)
    models = [shared.models.train(seed=seed) for seed in range(2, 6)]
    with hammered(shared) as clients:
        for number, another in enumerate(models, start=2):
            publisher.version(f"{number:06d}", another, deltas=25)
    known = np.array(list(publisher.known.values()))
    apart = np.abs(known[:, None] - known[None, :]).max(2)
    assert apart[~np.eye(len(known), dtype=bool)].min() > 1e-2, "the test cannot tell them apart"
    for found in clients:
        states = [(version, delta) for version, delta, _ in found]
        assert len(set(states)) > 20
        assert states == sorted(states), "an older state was served after a newer one"
        for version, delta, got in found:
            wanted = publisher.known[version, delta]
            assert got == pytest.approx(wanted, abs=1e-5), (version, delta)


def test_stale_rows_do_not_overwrite_newer_ones(shared: World) -> None:
    serves = shared.serving()
    assert serves is not None
    held = shared.models.held(shared.models.train(seed=3))
    row, vector, item_row = held.user_rows[0], held.item_vectors[0], held.item_rows[0]
    items = {"i30": (vector, item_row)}
    number = shared.send_delta(serves[0], users={"u1": row}, items=items, ts=NOW + 100)
    shared.until(lambda: shared.serving() == (serves[0], number))
    before = shared.rank("u1", candidates=["i30"])["items"]
    stale = shared.metric("headrace_channel_stale_rows_total", channel="champion")
    older = {"i30": (vector + 1, item_row), "i31": (vector, item_row)}
    number = shared.send_delta(serves[0], users={"u1": row + 1}, items=older, ts=NOW + 99)
    shared.until(lambda: shared.serving() == (serves[0], number))
    assert shared.rank("u1", candidates=["i30"])["items"] == before
    assert shared.metric("headrace_channel_stale_rows_total", channel="champion") == stale + 2

    def ts(path: str) -> int:
        found: int = shared.http.get(f"/v1/{path}").json()["channels"]["champion"]["ts"]
        return found

    assert (ts("users/u1"), ts("items/i30"), ts("items/i31")) == (NOW + 100, NOW + 100, NOW + 99)
    # what is as new as what is held may replace it: the same delta sent again must not be lost
    number = shared.send_delta(serves[0], users={"u1": row + 1}, ts=NOW + 100)
    shared.until(lambda: shared.serving() == (serves[0], number))
    assert shared.rank("u1", candidates=["i30"])["items"] != before


def test_a_delta_for_another_base_is_ignored(shared: World) -> None:
    serves, before = shared.serving(), shared.rank("u2")["items"]
    width = shared.models.held(shared.models.train(seed=3)).user_rows.shape[1]
    labels = {"channel": "champion", "outcome": "other_base"}
    count = shared.metric("headrace_channel_deltas_total", **labels)
    shared.send_delta("000000", users={"u2": np.ones(width)}, ts=NOW + 10**6)
    shared.until(lambda: shared.metric("headrace_channel_deltas_total", **labels) > count)
    assert shared.serving() == serves
    assert shared.rank("u2")["items"] == before


def test_a_new_item_of_the_catalogue_is_ranked(shared: World) -> None:
    entity = Entity(id="fresh", attributes={"genres": ["War"], "decade": "1990"})
    shared.kafka.send(shared.settings.topic(ITEMS), encode(entity), b"fresh")
    shared.until(lambda: "fresh" in {i["item_id"] for i in shared.rank()["items"]})
    assert shared.versions()["serves"]["items"] == 40  # nothing was learnt of it


# ---------------------------------------------------------------------- rolling back


def test_a_rollback_is_followed_and_held(world: World, model: IntTower) -> None:
    before = world.rank("u1")["items"]
    world.publish(world.models.train(seed=2), "000002", parent="000001", auc=0.9)
    world.until(lambda: world.serving() == ("000002", -1))
    number = world.send_delta("000001", users={"u9": world.models.held(model).user_rows[0]})
    began = time.monotonic()
    assert world.store.rollback("champion") == "000001"
    # deltas that came while another version served are in it; the gate (0.8 < 0.97 of 0.9) is not
    world.until(lambda: world.serving() == ("000001", number))
    assert time.monotonic() - began < 2.5
    assert world.rank("u1")["items"] == before
    info = "headrace_channel_version_info"
    assert world.metric(info, channel="champion", version="000001") == 1
    assert world.metric(info, channel="champion", version="000002") == 0
    # what is published now waits for the release
    world.publish(model, "000003", auc=0.9)
    marker = world.send_delta("000001")
    world.until(lambda: world.serving() == ("000001", marker))
    world.store.resume("champion")
    world.until(lambda: world.serving() == ("000003", -1), timeout_s=2.5)
    assert world.versions()["refused"] == []


def test_a_verdict_of_the_gate_holds_after_a_restart_and_on_every_replica(
    make_world: Callable[..., World], model: IntTower, unused_port: Callable[[], int]
) -> None:
    world = make_world()
    world.start()
    world.publish(model, "000001", auc=0.8)
    world.until(lambda: world.serving() == ("000001", -1))
    world.publish(world.models.train(seed=2), "000002", parent="000001", auc=0.7)
    world.until(lambda: world.versions()["refused"])
    refused = world.versions()["refused"][0]
    assert (refused["what"], refused["reason"]) == ("version 000002", "quality")
    replica = make_world(port=unused_port())
    replica.start()
    replica.until(lambda: replica.serving() == ("000001", -1))
    assert replica.versions()["refused"][0]["detail"] == refused["detail"]
    # one that serves what another refuses goes back to what nobody has
    world.publish(model, "000003", parent="000001", auc=0.8)
    world.until(lambda: world.serving() == replica.serving() == ("000003", -1))
    world.store.refuse("champion", "000003", "quality", "found by a replica of other settings")
    world.until(lambda: world.serving() == replica.serving() == ("000001", -1))


# ---------------------------------------------------------------------- starting late


def test_a_late_server_loads_the_version_then_what_came_after(
    make_world: Callable[..., World], model: IntTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each channel is served first when its deltas are in it, however many reads that takes."""
    world = make_world()
    first: dict[str, tuple[str, int]] = {}
    install = Channel.install

    def spy(channel: Channel, live: LiveModel) -> None:
        first.setdefault(channel.name, (live.version, live.delta))
        install(channel, live)

    monkeypatch.setattr(Channel, "install", spy)
    row = world.models.held(model).user_rows[0]
    start = world.send_delta("000007", users={"too early": row}) + 1
    for channel in ("champion", "frozen"):
        world.publish(model, "000007", channel=channel, updates_offset=start)
    crowd = {f"stranger {n}": row for n in range(8_000)}
    last: dict[str, Any] = {}
    for _ in range(4):
        for channel in ("champion", "frozen"):
            last[channel] = ("000007", world.send_delta("000007", users=crowd, channel=channel))
    last["frozen"] = ("000007", world.send_delta("000007", users={"late": row}, channel="frozen"))
    world.start()
    world.until(lambda: world.serving() and world.serving("frozen"))
    assert first == last

    def known(user: str) -> dict[str, bool]:
        channels = world.http.get(f"/v1/users/{user}").json()["channels"]
        return {name: held["known"] for name, held in channels.items()}

    assert known("too early") == {"champion": False, "frozen": False}
    assert known("stranger 0") == {"champion": True, "frozen": True}
    assert known("late") == {"champion": False, "frozen": True}


def test_a_late_server_takes_the_newest_sound_version(
    make_world: Callable[..., World], model: IntTower
) -> None:
    world = make_world()
    for number in (1, 2, 3):
        broken = (lambda folder: (folder / "ids.json").unlink()) if number > 1 else None
        world.publish(model, f"00000{number}", damage=broken)
    world.start()
    world.until(lambda: world.serving() == ("000001", -1))
    refused = [r["what"] for r in world.versions()["refused"]]
    assert refused == ["version 000002", "version 000003"]
    world.until(lambda: world.http.get("/readyz").is_success)


# ---------------------------------------------------------------------- when things go wrong


def test_what_came_while_the_connection_was_lost_is_taken_in_afterwards(
    world: World, model: IntTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, read = threading.Event(), Follower._read

    def read_or_fail(follower: Follower, updates: KafkaConsumer) -> None:
        if lost.is_set():
            raise KafkaConnectionError("lost")
        read(follower, updates)

    monkeypatch.setattr("serving.model.follower._RETRY_S", 0.2)
    monkeypatch.setattr(Follower, "_read", read_or_fail)
    errors = world.metric("headrace_follower_errors_total", source="broker")
    lost.set()
    world.until(
        lambda: world.metric("headrace_follower_errors_total", source="broker") > errors + 1
    )
    number = world.send_delta("000001", users={"meanwhile": world.models.held(model).user_rows[0]})
    world.publish(model, "000002", channel="frozen", updates_offset=number + 1)
    assert world.http.get("/readyz").is_success  # it ranks on, with what it has
    assert world.rank()["delta"] == -1
    lost.clear()
    world.until(lambda: world.serving() == ("000001", number))
    world.until(lambda: world.serving("frozen") == ("000002", -1))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_server_that_cannot_follow_ends(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is started again is better than one that serves ever older vectors."""

    world, ended = make_world(), list[bool]()
    world.thread = threading.Thread(target=lambda: ended.append(world.server.run()))
    world.thread.start()
    world.until(lambda: world.http.get("/readyz").is_success)

    def look(*_: object) -> None:
        raise RuntimeError("what nobody thought of")

    monkeypatch.setattr(Follower, "_look", look)
    world.thread.join(20)
    assert ended == [False]
    world.stop()
