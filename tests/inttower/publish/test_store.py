"""The model store, in a local folder and in an object store, killed at every step."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from inttower.errors import StoreError
from inttower.publish.store import MANIFEST, ModelStore

FILES = ("dense.safetensors", "rows.safetensors", MANIFEST)


class KilledError(BaseException):
    """Stands for kill -9: nothing that a process would still do after it may be done."""


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "models")
    else:
        yield "memory://models"
        fsspec.filesystem("memory").rm("/models", recursive=True)


def write(folder: Path, version: str, parent: str | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name in FILES[:-1]:
        (folder / name).write_bytes(f"{name} of {version}".encode() * 100)
    (folder / MANIFEST).write_text(json.dumps({"version": version, "parent": parent}))
    return folder


def publish(store: ModelStore, version: str, parent: str | None = None) -> bool:
    with store.draft("champion") as folder:
        return store.publish("champion", version, write(folder, version, parent))


def is_complete(store: ModelStore, version: str) -> bool:
    fs, path = fsspec.core.url_to_fs(store.url("champion", version))
    return all(fs.exists(f"{path}/{name}") for name in FILES)


def names(store: ModelStore) -> set[str]:
    fs, path = fsspec.core.url_to_fs(store.url("champion", "x"))
    return {p.rpartition("/")[2] for p in fs.ls(path.rpartition("/")[0], detail=False)}


def test_an_empty_store_has_nothing(url: str, tmp_path: Path) -> None:
    store = ModelStore(url)
    assert store.channels() == store.versions("champion") == []
    assert store.current("champion") is None
    assert store.resume("champion") is None
    assert store.prune("champion", keep=1) == []
    with pytest.raises(StoreError, match="no version to roll back from"):
        store.rollback("champion")
    publish(store, "000001")


def test_publish_points_and_readers_see_it(url: str) -> None:
    store, reader = ModelStore(url), ModelStore(url)
    assert publish(store, "000001")
    assert publish(store, "000002", parent="000001")
    assert reader.channels() == ["champion"]
    assert reader.versions("champion") == ["000001", "000002"]
    assert reader.current("champion") == "000002"
    assert reader.manifest("champion", "000002")["parent"] == "000001"
    assert names(store) == {"000001", "000002", "CURRENT"}
    fs, path = fsspec.core.url_to_fs(reader.url("champion", "000002"))
    assert fs.cat_file(f"{path}/{FILES[0]}").startswith(b"dense.safetensors of 000002")


def test_any_local_folder_can_be_published_and_stays(url: str, tmp_path: Path) -> None:
    store = ModelStore(url)
    mine = write(tmp_path / "mine", "000001")
    assert store.publish("champion", "000001", mine)
    assert sorted(p.name for p in mine.iterdir()) == sorted(FILES)
    assert is_complete(store, "000001")


def test_a_version_never_changes(url: str) -> None:
    store = ModelStore(url)
    publish(store, "000001")
    assert publish(store, "000001")  # the same again: the end of what a killed writer began
    with pytest.raises(StoreError, match="never changes: take a new name"):
        publish(store, "000001", parent="other")


def test_a_folder_without_manifest_is_refused(url: str) -> None:
    store = ModelStore(url)
    with store.draft("champion") as folder, pytest.raises(StoreError, match="write the bundle"):
        store.publish("champion", "000001", folder)
    publish(store, "000001")
    assert names(store) == {"000001", "CURRENT"}


def test_a_rollback_holds_until_it_is_resumed(url: str) -> None:
    store = ModelStore(url)
    publish(store, "000001")
    publish(store, "000002", parent="000001")
    assert store.rollback("champion") == "000001"
    assert not publish(store, "000003", parent="000002")
    assert store.current("champion") == "000001"
    assert store.resume("champion") == "000003"
    assert publish(store, "000004", parent="000003")
    assert store.rollback("champion", to="000002") == "000002"
    pointer = store.pointer("champion")
    assert pointer is not None
    assert {(m.version, m.why) for m in pointer.moves} == {
        *((f"00000{n}", "publish") for n in range(1, 5)),
        ("000001", "rollback from 000002"),
        ("000003", "resume"),
        ("000002", "rollback from 000004"),
    }
    assert [m.at_ms for m in pointer.moves] == sorted(m.at_ms for m in pointer.moves)
    assert pointer.held


@pytest.mark.parametrize("step", range(1, 4))
def test_a_rollback_while_a_version_is_published_is_not_lost(
    url: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any read or write that the publisher does to the small files."""
    store, other = ModelStore(url), ModelStore(url)
    publish(store, "000001")
    publish(store, "000002", parent="000001")
    done = 0

    def interrupted(name: str) -> None:
        real = getattr(ModelStore, name)

        def call(*args: object) -> object:
            nonlocal done
            done += args[0] is store
            if done == step and args[0] is store:
                other.rollback("champion")
            return real(*args)

        monkeypatch.setattr(ModelStore, name, call)

    for name in ("_place", "_write_small"):
        interrupted(name)
    publish(store, "000003", parent="000002")
    assert done == 3
    pointer = store.pointer("champion")
    assert pointer is not None
    assert pointer.held
    assert pointer.version == ("000002" if step == 3 else "000001")


def test_a_refusal_is_kept_with_the_version(url: str) -> None:
    store, other = ModelStore(url), ModelStore(url)
    for n in range(1, 5):
        publish(store, f"{n:06}", parent=f"{n - 1:06}" if n > 1 else None)
    assert other.refusal("champion", "000004") is None
    for version in ("000002", "000004"):
        store.refuse("champion", version, "quality", "its AUC")
    found = other.refusal("champion", "000004")
    assert found is not None
    assert (found.version, found.reason, found.detail) == ("000004", "quality", "its AUC")
    assert (other.current("champion"), other.served("champion")) == ("000004", "000003")
    other.rollback("champion", to="000002")  # a person may
    assert other.served("champion") == "000002"
    other.resume("champion")
    assert other.served("champion") == "000003"
    store.prune("champion", keep=1)
    assert store.versions("champion") == ["000002", "000003", "000004"]
    publish(store, "000005", parent="000004")
    store.prune("champion", keep=1)
    assert names(store) == {"000004", "000005", "000004.refused.json", "CURRENT", "HELD"}


def test_a_store_in_which_all_is_refused_serves_nothing(url: str) -> None:
    store = ModelStore(url)
    assert store.served("champion") is None
    publish(store, "000001")
    store.refuse("champion", "000001", "quality", "")
    assert store.served("champion") is None
    fs, path = fsspec.core.url_to_fs(store.url("champion", "000001"))
    fs.pipe_file(f"{path}.refused.json", b"{")
    with pytest.raises(StoreError, match="judge the version again"):
        store.served("champion")


def test_rollback_to_what_is_not_there_changes_nothing(url: str) -> None:
    store = ModelStore(url)
    publish(store, "000001")
    with pytest.raises(StoreError, match="'000009'; it has: 000001"):
        store.rollback("champion", to="000009")
    with pytest.raises(StoreError, match="has no parent"):
        store.rollback("champion")
    assert store.current("champion") == "000001"
    assert publish(store, "000002")


def test_prune_keeps_the_newest_the_current_and_its_parent(url: str) -> None:
    store = ModelStore(url)
    for n in range(1, 8):
        publish(store, f"{n:06}", parent=f"{n - 1:06}" if n > 1 else None)
    store.rollback("champion", to="000003")
    assert store.prune("champion", keep=2) == ["000001", "000004", "000005"]
    assert store.versions("champion") == ["000002", "000003", "000006", "000007"]
    assert store.prune("champion", keep=0) == []  # the newest published and its parent
    store.resume("champion")
    assert store.prune("champion", keep=0) == ["000002", "000003"]
    assert names(store) == {"000006", "000007", "CURRENT", "HELD"}


def test_an_open_draft_is_not_pruned(url: str) -> None:
    store = ModelStore(url)
    publish(store, "000001")
    with store.draft("champion") as folder:
        write(folder, "000002")
        store.prune("champion", keep=1)
        assert store.publish("champion", "000002", folder)


@pytest.mark.parametrize(
    "name", ["", "..", ".hidden", "a/b", "CURRENT", "HELD", "a b", "1.refused.json"]
)
def test_names_that_would_leave_the_store_are_refused(url: str, name: str) -> None:
    store = ModelStore(url)
    publish(store, "000001")
    with pytest.raises(StoreError, match="cannot be the name"):
        store.versions(name)
    with pytest.raises(StoreError, match="cannot be the name"):
        store.manifest("champion", name)


def test_a_pointer_that_cannot_be_read_says_the_cure(url: str) -> None:
    store = ModelStore(url)
    publish(store, "000001")
    fs, path = fsspec.core.url_to_fs(store.url("champion", "x"))
    for data in (b"", b"{}", b"[]", b"3", b'{"version": "000001", "moves": [{}]}'):
        fs.pipe_file(path.rpartition("/")[0] + "/CURRENT", data)
        with pytest.raises(StoreError, match="remove it and name a version"):
            store.current("champion")


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(StoreError, match="nosuch://x"):
        ModelStore("nosuch://x")


def die_at(step: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Every operation that changes a file counts; the ``step``-th and all later ones die."""
    done = 0

    def wrap(owner: object, name: str) -> None:
        real = getattr(owner, name)

        def counted(*args: object, **options: object) -> object:
            nonlocal done
            done += 1
            if done > step:
                raise KilledError
            return real(*args, **options)

        monkeypatch.setattr(owner, name, counted)

    for owner, name in (
        (os, "fsync"),
        (Path, "rename"),
        (Path, "replace"),
        (MemoryFileSystem, "pipe_file"),
        (MemoryFileSystem, "rm_file"),
        (os, "remove"),
    ):
        wrap(owner, name)
    return lambda: done > step


@pytest.mark.parametrize("step", range(10))
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new(
    url: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(url)
    publish(store, "000001")
    draft = store.draft("champion")
    folder = write(draft.__enter__(), "000002", parent="000001")  # left as kill -9 leaves it
    with monkeypatch.context() as patched:
        killed = die_at(step, patched)
        try:
            store.publish("champion", "000002", folder)
        except KilledError:
            assert killed()
        else:
            assert not killed()
    again = ModelStore(url)
    assert again.current("champion") in {"000001", "000002"}
    assert again.current("champion") == "000002" or killed()
    assert all(is_complete(again, version) for version in again.versions("champion"))
    again.prune("champion", keep=5)
    assert names(again) == {"CURRENT", *again.versions("champion")}
    assert publish(again, "000002", parent="000001")
    assert again.current("champion") == "000002"
    assert again.versions("champion") == ["000001", "000002"]


@pytest.mark.parametrize("step", range(8))
def test_a_prune_killed_at_any_step_leaves_no_half_version(
    url: str, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(url)
    for n in range(1, 5):
        publish(store, f"{n:06}", parent=f"{n - 1:06}" if n > 1 else None)
    with monkeypatch.context() as patched:
        killed = die_at(step, patched)
        try:
            store.prune("champion", keep=1)
        except KilledError:
            assert killed()
    again = ModelStore(url)
    assert again.current("champion") == "000004"
    assert all(is_complete(again, version) for version in again.versions("champion"))
    again.prune("champion", keep=1)
    assert names(again) == {"CURRENT", "000003", "000004"}
