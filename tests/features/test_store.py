"""The online store on real Feast: what is written is read, and time only moves forward."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.feast_repo import apply_repository, folder
from features.feature_writer import View
from features.logs.movielens_features import MOVIELENS
from features.online_table import LATEST_MS, entity_key, online_table, pack_value, unpack_value
from features.user_lookup import OnlineStore
from settings.errors import StorageError
from settings.settings import Settings

T = 978_300_760_123
Row = Callable[..., bytes]


def _view(settings: Settings) -> View:
    return View(online_table(settings, "user"), "user", batch_rows=3)


def test_what_is_written_is_read_with_its_exact_time(store_settings: Settings, row: Row) -> None:
    online = OnlineStore(store_settings, MOVIELENS)
    assert online.read_user("ü 1") is None
    _view(store_settings).write([row("user", "ü 1", T, 7), row("user", "2", T)], "t", {0: 2})
    found = online.read_user("ü 1")
    assert found is not None
    assert (found.id, found.ts) == ("ü 1", T)
    assert msgspec.structs.asdict(found)["user_clicks"] == 7
    assert msgspec.structs.asdict(found)["user_liked"] == ("liked",)
    assert online.read_item("ü 1") is None
    # the writer's position lies under the empty id
    assert online.read_user("") is None


def test_feast_itself_reads_the_same_row(store_settings: Settings, row: Row) -> None:
    from feast import FeatureStore
    from feast.infra.provider import get_provider
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    _view(store_settings).write([row("user", "1", T)], "t", {0: 1})
    store = FeatureStore(repo_path=str(folder(store_settings)))
    got = store.get_online_features(
        features=["user_features:row"], entity_rows=[{"user_id": "1"}, {"user_id": "2"}]
    ).to_dict()
    assert got == {"user_id": ["1", "2"], "row": [row("user", "1", T), None]}
    view = store.get_feature_view("user_features")
    assert view.tags["row"].startswith("ts user_impressions")
    # its event time too; and what Feast writes is read by us
    provider, key = get_provider(store.config), EntityKey(join_keys=["user_id"])
    key.entity_values.append(Value(string_val="1"))
    [(at, _)] = provider.online_read(store.config, view, [key], ["row"])
    exact = datetime.fromtimestamp(T / 1000, tz=UTC)
    assert at in (exact, exact.replace(microsecond=0))  # SQLite's are whole seconds
    by_feast = {"row": Value(bytes_val=row("user", "1", T + 5))}
    provider.online_write_batch(store.config, view, [(key, by_feast, at, None)], None)
    assert online_table(store_settings, "user").read(["1", "2"]) == [row("user", "1", T + 5), None]


@given(st.text(max_size=200), st.binary(max_size=40_000))
def test_keys_and_values_are_those_of_feast(id_: str, packed: bytes) -> None:
    from feast.infra.key_encoding_utils import serialize_entity_key
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=["item_id"], entity_values=[Value(string_val=id_)])
    assert entity_key("item", id_) == serialize_entity_key(key, 3)
    assert pack_value(packed) == Value(bytes_val=packed).SerializeToString()
    assert unpack_value(pack_value(packed)) == (packed or None)


@pytest.mark.parametrize("damaged", [b"x", b"\x0a", b"\x0a\x05ab", b"\x12\x01a", b"\x0a\xff"])
def test_a_damaged_value_is_an_error(damaged: bytes) -> None:
    with pytest.raises(StorageError, match="headrace reset"):
        unpack_value(damaged)


def test_an_older_row_never_replaces_a_newer_one(store_settings: Settings, row: Row) -> None:
    online = OnlineStore(store_settings, MOVIELENS)
    view = _view(store_settings)
    assert view.write([row("user", "1", T, 5)], "t", {0: 1}) == 1
    assert view.write([row("user", "1", T - 1, 4)], "t", {0: 2}) == 0
    # a new process does not remember, and asks the store
    view = _view(store_settings)
    ids = ["1", "a", "b", "c", "d"]
    assert view.write([row("user", i, T - 1, 3) for i in ids], "t", {0: 3}) == 4
    found = online.read_user("1")
    assert found is not None
    assert found.ts == T
    # of equal times the later in the topic wins, within Redis' and SQLite's time resolution too
    assert view.write([row("user", "1", T, 6)], "t", {0: 4}) == 1
    found = online.read_user("1")
    assert found is not None
    assert msgspec.structs.asdict(found)["user_clicks"] == 6


def test_the_position_lies_with_the_rows(store_settings: Settings, row: Row) -> None:
    view = _view(store_settings)
    assert view.position("t") == {}
    view.write([row("user", str(i), T) for i in range(7)], "t", {0: 7, 1: 3})
    assert _view(store_settings).position("t") == {0: 7, 1: 3}
    with pytest.raises(StorageError, match="headrace reset"):
        _view(store_settings).position("a topic of the same name, made later")


def test_a_record_that_is_no_row_is_passed_over(store_settings: Settings, row: Row) -> None:
    view = _view(store_settings)
    times = [-1, LATEST_MS + 1, 10**400]
    bad = [b'{"user_id":"1","ts":%d}' % ts for ts in times]
    bad += [b"", b"{}", b'{"user_id":"1"}', b'{"user_id":1,"ts":5}', b'{"user_id":"1","ts":"x"}']
    assert view.write([*bad, row("user", "2", T)], "t", {0: 6}) == 1
    assert view.position("t") == {0: 6}


def test_a_failing_store_is_explained(tmp_path: Path, row: Row) -> None:
    settings = Settings(state=tmp_path)
    apply_repository(settings, MOVIELENS)
    view = _view(settings)
    with sqlite3.connect(folder(settings) / "online.db") as other:
        other.execute("DROP TABLE headrace_user_features")
    other.close()
    with pytest.raises(StorageError, match=r"online\.db failed"):
        view.write([row("user", "1", T)], "t", {0: 1})


def test_redis_that_is_not_there_is_explained(
    tmp_path: Path, unused_port: Callable[[], int]
) -> None:
    settings = Settings(state=tmp_path).with_changes(
        feast={"online_store": "redis", "redis": f"localhost:{unused_port()}"}
    )
    online = OnlineStore(settings, MOVIELENS)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"is feast\.redis right"):
            online.read_user("1")


def test_reads_go_on_while_rows_are_written(store_settings: Settings, row: Row) -> None:
    """Several readers, one writer: nobody waits for a lock, and nothing but whole rows is read."""
    online = OnlineStore(store_settings, MOVIELENS)
    view = _view(store_settings)
    stop = threading.Event()
    times: list[float] = []
    seen: list[int] = []

    def read() -> None:
        while not stop.is_set():
            began = time.perf_counter()
            found = online.read_user("1")
            times.append(time.perf_counter() - began)
            seen.append(0 if found is None else found.ts)
            time.sleep(0.0005)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for at in range(60):
        view.write([row("user", str(i), T + at) for i in range(20)], "t", {0: at})
    stop.set()
    for reader in readers:
        reader.join()
    assert seen[-1] == T + 59
    assert sorted(times)[len(times) // 2] < 0.05


def test_before_anything_is_written_nobody_has_a_row(tmp_path: Path) -> None:
    assert OnlineStore(Settings(state=tmp_path), MOVIELENS).read_user("1") is None


def test_a_store_that_is_put_right_is_read_again(tmp_path: Path, row: Row) -> None:
    settings = Settings(state=tmp_path)
    apply_repository(settings, MOVIELENS)
    _view(settings).write([row("user", "1", T)], "t", {0: 1})
    file = folder(settings) / "online.db"
    with sqlite3.connect(file) as connection:  # nothing beside the file itself
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    sound = file.read_bytes()
    online = OnlineStore(settings, MOVIELENS)
    for damage in (b"no database at all" * 100, sound[:5000]):
        file.write_bytes(damage)
        with pytest.raises(StorageError, match=r"online\.db failed"):
            online.read_user("1")
        file.write_bytes(sound)
        assert online.read_user("1") is not None
        online = OnlineStore(settings, MOVIELENS)
