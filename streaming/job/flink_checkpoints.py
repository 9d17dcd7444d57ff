"""Flink's checkpoints on disk: the newest complete one, and those that earlier runs left."""

from __future__ import annotations

import fsspec

from settings.settings import Settings


def checkpoint_url(settings: Settings) -> str:
    """The folder of checkpoints, as a URI that Flink and fsspec both read."""
    given = settings.flink.checkpoint_dir
    return given or (settings.state.absolute() / "flink" / "checkpoints").as_uri()


def newest_checkpoint(url: str) -> str | None:
    """The newest complete checkpoint or savepoint below a folder, over all jobs that wrote there.

    One without ``_metadata`` was not finished.
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
    """Delete what earlier runs left, except the checkpoint that this one starts from."""
    files, root = fsspec.url_to_fs(url)
    if not files.exists(root):
        return
    _, kept = fsspec.url_to_fs(keep)
    for folder in files.ls(root, detail=False):
        if not kept.startswith(folder):
            files.rm(folder, recursive=True)
