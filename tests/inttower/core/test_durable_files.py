"""A file that is replaced is the old one or the new one."""

import errno
import os
from pathlib import Path

import pytest

from inttower.core.durable_files import rename_synced, write_atomic, write_synced


def test_a_full_disk_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pointer"
    write_atomic(path, b"old")

    def full(_: int) -> None:
        assert path.read_bytes() == b"old"  # nothing is replaced before all of it is on the disk
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["pointer"]
    write_atomic(path, b"newer", durable=False)
    assert path.read_bytes() == b"newer"
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_draft_gets_its_name_with_all_its_files(tmp_path: Path) -> None:
    draft = tmp_path / ".draft"
    draft.mkdir()
    write_synced(draft / "a", b"1")
    rename_synced(draft, tmp_path / "final")
    assert (tmp_path / "final" / "a").read_bytes() == b"1"
    assert not draft.exists()
