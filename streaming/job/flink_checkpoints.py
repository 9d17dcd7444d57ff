"""Flink's checkpoints on disk: finds the newest complete one, deletes those of earlier runs."""

from __future__ import annotations

import fsspec

from settings.settings import Settings


def checkpoint_url(settings: Settings) -> str:
    """The folder of checkpoints, as a URI that Flink and fsspec both read."""
    given = settings.flink.checkpoint_dir
    return given or (settings.state.absolute() / "flink" / "checkpoints").as_uri()


def newest_checkpoint(url: str) -> str | None:
    """The newest complete checkpoint or savepoint below a folder, over all jobs that wrote there.

    A checkpoint without ``_metadata`` is incomplete.
    """
    files, root = fsspec.url_to_fs(url)
    complete = [
        path
        for pattern in ("*/chk-*/_metadata", "savepoint-*/_metadata")
        for path in files.glob(f"{root}/{pattern}")
    ]
    if not complete:
        return None
    newest = max(complete, key=lambda path: (files.modified(path), path))
    return str(files.unstrip_protocol(newest.rsplit("/", 1)[0]))


def prune_checkpoints(url: str, keep: str) -> None:
    """Delete checkpoints of earlier runs, except the one that this run starts from."""
    files, root = fsspec.url_to_fs(url)
    if not files.exists(root):
        return
    _, kept = fsspec.url_to_fs(keep)
    for folder in files.ls(root, detail=False):
        if not kept.startswith(folder):
            files.rm(folder, recursive=True)
