"""Ways in which a checkpoint can go wrong, each by name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from settings.errors import CheckpointError
from trainer import checkpoint as module
from trainer.checkpoint import Checkpoint, CheckpointFolder

SETTINGS = {"seed": "0", "preset": "plus"}


class Killed(BaseException):
    """Stands for the process dying: nothing may catch it."""


def parts_of(step: int) -> dict[str, dict[str, Any]]:
    return {
        "model": {
            "weights": np.full((3, 4), step, np.float32),
            "ids": f"user {step}".encode(),
            "step": np.array(step),
            "empty": np.zeros((0, 5), np.int64),
            "nothing": b"",
        },
        "metrics": {"labels": np.arange(step, dtype=np.uint8)},
    }


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[CheckpointFolder]:
    made = CheckpointFolder(tmp_path / "trainer", keep=3)
    yield made
    made.close()


def save(folder: CheckpointFolder, step: int) -> Path:
    return folder.save(b'{"step":%d}' % step, SETTINGS, parts_of(step))


def reopen(path: Path) -> Checkpoint | None:
    """What a new process would load."""
    folder = CheckpointFolder(path, keep=3)
    try:
        return folder.load(SETTINGS)
    finally:
        folder.close()


def assert_is(checkpoint: Checkpoint | None, step: int) -> None:
    assert checkpoint is not None
    assert checkpoint.meta == b'{"step":%d}' % step
    expected = parts_of(step)
    assert checkpoint.parts.keys() == expected.keys()
    for name, part in expected.items():
        assert checkpoint.parts[name].keys() == part.keys()
        for entry, value in part.items():
            got = checkpoint.parts[name][entry]
            if isinstance(value, bytes):
                assert got == value
            else:
                assert isinstance(got, np.ndarray)
                assert (got.dtype, got.shape) == (value.dtype, value.shape)
                np.testing.assert_array_equal(got, value)


def test_what_is_saved_is_loaded(folder: CheckpointFolder) -> None:
    save(folder, 7)
    assert_is(folder.load(SETTINGS), 7)


def test_without_a_checkpoint_there_is_none(folder: CheckpointFolder) -> None:
    assert folder.load(SETTINGS) is None


def test_the_newest_is_loaded(folder: CheckpointFolder) -> None:
    for step in range(12):
        save(folder, step)
    assert_is(folder.load(SETTINGS), 11)


def test_the_oldest_are_let_go(folder: CheckpointFolder) -> None:
    for step in range(5):
        save(folder, step)
    assert folder.numbers() == [5, 4, 3]


def test_the_same_state_gives_the_same_bytes(folder: CheckpointFolder) -> None:
    one, other = save(folder, 3), save(folder, 3)
    assert (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


# each damages a checkpoint folder that was whole
def tear_model(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-7])


def empty_model(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"")


def grow_model(path: Path) -> None:
    with (path / "model.safetensors").open("ab") as file:
        file.write(b"more")


def flip_weight(path: Path) -> None:
    flip(path / "model.safetensors", -1)


def flip_header(path: Path) -> None:
    flip(path / "metrics.safetensors", 9)


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def lose_model(path: Path) -> None:
    (path / "model.safetensors").unlink()


def lose_manifest(path: Path) -> None:
    (path / "manifest.json").unlink()


def tear_manifest(path: Path) -> None:
    file = path / "manifest.json"
    file.write_bytes(file.read_bytes()[:-20])


def empty_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"")


def binary_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"\xff\x00\xfe")


def other_json_manifest(path: Path) -> None:
    (path / "manifest.json").write_bytes(b"[]")


def edit_offsets(path: Path) -> None:
    file = path / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b'"step":', b'"step":1'))


def edit_fingerprint(path: Path) -> None:
    file = path / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b'"seed":"0"', b'"seed":"1"'))


def swap_parts(path: Path) -> None:
    (path / "model.safetensors").rename(path / "x")
    (path / "metrics.safetensors").rename(path / "model.safetensors")
    (path / "x").rename(path / "metrics.safetensors")


def model_of_the_one_before(path: Path) -> None:
    before = path.parent / f"checkpoint-{int(path.name[-12:]) - 1:012d}"
    shutil.copy(before / "model.safetensors", path / "model.safetensors")


def manifest_of_the_one_before(path: Path) -> None:
    before = path.parent / f"checkpoint-{int(path.name[-12:]) - 1:012d}"
    shutil.copy(before / "manifest.json", path / "manifest.json")


def whole_copy_of_the_one_before(path: Path) -> None:
    before = path.parent / f"checkpoint-{int(path.name[-12:]) - 1:012d}"
    shutil.rmtree(path)
    shutil.copytree(before, path)


def model_is_a_folder(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "model.safetensors").mkdir()


def empty_folder(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


DAMAGES = [
    (tear_model, "hash"),
    (empty_model, "hash"),
    (grow_model, "hash"),
    (flip_weight, "hash"),
    (flip_header, "hash"),
    (lose_model, "model.safetensors is missing"),
    (lose_manifest, "manifest.json is missing"),
    (tear_manifest, "manifest cannot be read"),
    (empty_manifest, "manifest cannot be read"),
    (binary_manifest, "manifest cannot be read"),
    (other_json_manifest, "manifest cannot be read"),
    (edit_offsets, "manifest has another hash"),
    (edit_fingerprint, "manifest has another hash"),
    (swap_parts, "hash"),
    (model_of_the_one_before, "hash"),
    (manifest_of_the_one_before, "manifest is that of checkpoint 1"),
    (whole_copy_of_the_one_before, "manifest is that of checkpoint 1"),
    (model_is_a_folder, "cannot be read"),
    (empty_folder, "manifest.json is missing"),
]


@pytest.mark.parametrize(("damage", "reason"), DAMAGES, ids=lambda v: getattr(v, "__name__", ""))
def test_a_damaged_one_is_refused_and_the_one_before_is_taken(
    folder: CheckpointFolder,
    damage: Callable[[Path], None],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    save(folder, 1)
    damage(save(folder, 2))
    assert_is(folder.load(SETTINGS), 1)
    assert reason in caplog.text


def test_a_damaged_one_does_not_push_out_a_whole_one(folder: CheckpointFolder) -> None:
    save(folder, 1)
    flip_weight(save(folder, 2))
    assert_is(folder.load(SETTINGS), 1)
    newest = save(folder, 3)
    assert newest.name.endswith("3")
    assert folder.numbers() == [3, 1]


def test_damage_to_all_is_an_error_with_a_cure(folder: CheckpointFolder) -> None:
    flip_weight(save(folder, 1))
    lose_model(save(folder, 2))
    for _ in range(2):  # the second start finds them set aside and must not begin from nothing
        with pytest.raises(CheckpointError, match="remove the folder"):
            folder.load(SETTINGS)


@pytest.mark.parametrize("then", [{"seed": "1", "preset": "plus"}, {"preset": "plus"}, {}])
def test_other_settings_are_refused(folder: CheckpointFolder, then: dict[str, str]) -> None:
    folder.save(b"{}", then, parts_of(1))
    with pytest.raises(CheckpointError, match=r"seed was .*, is 0.*set them back"):
        folder.load(SETTINGS)
    assert folder.numbers() == [1]


def test_another_format_is_refused(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(folder, 1)
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    with pytest.raises(CheckpointError, match="has format 3, this headrace reads 4"):
        folder.load(SETTINGS)


def test_two_processes_cannot_share_a_folder(folder: CheckpointFolder, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="another trainer is running"):
        CheckpointFolder(tmp_path / "trainer", keep=3)
    folder.close()
    CheckpointFolder(tmp_path / "trainer", keep=3).close()


class Steps:
    """Counts calls that touch the disk and dies or fails at one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        self.at = -1
        self.error: BaseException = Killed()
        for owner, name in (
            (os, "fsync"),
            (Path, "rename"),
            (Path, "mkdir"),
            (Path, "open"),
            (shutil, "rmtree"),
        ):
            monkeypatch.setattr(owner, name, self._wrapped(getattr(owner, name)))

    def _wrapped(self, original: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            if self.count == self.at:
                self.at = -1
                raise self.error
            self.count += 1
            return original(*args, **kwargs)

        return call


def test_a_crash_at_any_step_leaves_the_old_or_the_new_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = Steps(monkeypatch)
    crashed = 0
    for at in range(100):
        path = tmp_path / str(at)
        folder = CheckpointFolder(path, keep=1)
        save(folder, 1)
        steps.count, steps.at = 0, at
        try:
            save(folder, 2)
        except Killed:
            crashed += 1
        else:
            break
        finally:
            steps.at = -1
            folder.close()
        loaded = reopen(path)
        assert loaded is not None
        assert_is(loaded, 2 if loaded.number == 2 else 1)
        assert not list(path.glob(".tmp-*"))
        again = CheckpointFolder(path, keep=1)
        save(again, 3)
        assert_is(again.load(SETTINGS), 3)
        again.close()
    # mkdir, two parts and the manifest opened and synced, two folders synced, rename, prune
    assert crashed >= 10
    assert steps.count == crashed


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
def test_a_full_or_failing_disk_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = CheckpointFolder(tmp_path, keep=3)
    save(folder, 1)
    steps = Steps(monkeypatch)
    steps.error = OSError(number, os.strerror(number))
    for at in range(9):
        steps.count, steps.at = 0, at
        with pytest.raises(CheckpointError, match=r"the one\s+before it is kept"):
            save(folder, 2)
        assert_is(folder.load(SETTINGS), 1)
    steps.at = -1
    save(folder, 3)
    assert_is(folder.load(SETTINGS), 3)
    folder.close()


def test_a_left_over_of_a_crash_is_removed_at_start(tmp_path: Path) -> None:
    left_over = tmp_path / ".tmp-000000000009"
    left_over.mkdir()
    (left_over / "model.safetensors").write_bytes(b"half")
    assert reopen(tmp_path) is None
    assert not left_over.exists()


def test_a_stray_folder_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-backup").mkdir()
    assert reopen(tmp_path) is None
