"""Writes files so that a crash leaves the old content or the new, never a part of either."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace a file as a whole: temporary name, fsync, rename.

    Several processes may write the same file; the last rename wins. A process that is killed
    leaves at most a file named ``.NAME-*`` in the same folder.

    Args:
        path: the file; its folder must exist.
        data: the whole new content.
        durable: on the disk when this returns. False spares the fsync where the content can be
            made again: after a power cut the file may then be empty.

    It raises:
        OSError: the disk is full or refuses; the old content is kept.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def write_synced(path: Path, data: bytes) -> None:
    """Write a file of a folder that has only a temporary name yet; on the disk when it returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def rename_synced(draft: Path, final: Path) -> None:
    """Give a folder whose files are on the disk its final name; both lie in one parent folder."""
    sync(draft)
    draft.rename(final)
    sync(final.parent)


def sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
