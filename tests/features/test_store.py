"""The online store on real Feast: what is written is read, and time only moves forward."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from features.feast_repo import Repository, folder
from features.feature_writer import View
from features.logs.movielens_features import MOVIELENS
from features.user_lookup import OnlineStore
from settings.errors import StorageError
from settings.settings import Settings

T = 978_300_760_123
Row = Callable[..., bytes]


def _view(settings: Settings) -> View:
    return View(Repository(settings, MOVIELENS).table("user"), "user", batch_rows=3)


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

    _view(store_settings).write([row("user", "1", T)], "t", {0: 1})
    store = FeatureStore(repo_path=str(folder(store_settings)))
    got = store.get_online_features(
        features=["user_features:row"], entity_rows=[{"user_id": "1"}, {"user_id": "2"}]
    ).to_dict()
    assert got == {"user_id": ["1", "2"], "row": [row("user", "1", T), None]}
    assert store.get_feature_view("user_features").tags["row"].startswith("ts user_impressions")


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
    bad = [b"", b"{}", b'{"user_id":"1"}', b'{"user_id":1,"ts":5}', b'{"user_id":"1","ts":"x"}']
    assert view.write([*bad, row("user", "2", T)], "t", {0: 6}) == 1
    assert view.position("t") == {0: 6}


def test_a_failing_store_is_explained(tmp_path: Path, row: Row) -> None:
    settings = Settings(state=tmp_path)
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
    with pytest.raises(StorageError, match=r"is feast\.redis right"):
        OnlineStore(settings, MOVIELENS)


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


def test_many_open_the_repository_at_once_and_one_applies(tmp_path: Path) -> None:
    settings = Settings(state=tmp_path)
    failures: list[BaseException] = []

    def open_it() -> None:
        try:
            OnlineStore(settings, MOVIELENS).read_user("1")
        except StorageError as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with sqlite3.connect(folder(settings) / "online.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
