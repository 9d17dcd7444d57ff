"""The model store: a folder a channel, a folder a version, a pointer to the current version.

    STORE/champion/000012/manifest.json ...    a version: a folder that never changes
    STORE/champion/CURRENT                     the pointer, replaced as a whole

The store is a local folder or any location that fsspec reaches. A writer that is killed at any
moment never shows half a version: **a version is a folder with a manifest in it**, the manifest is
written last, and the pointer moves after that.

- Local folder: the files are written to a draft folder next to the versions and synced to disk,
  then
  the folder is renamed. The pointer is written to a temporary file, synced, and renamed.
- Object store, which cannot rename a folder: the files are uploaded, the manifest last, then the
  pointer; each upload is atomic.

Leftovers of a killed writer (drafts, folders without manifest) are never listed;
:meth:`ModelStore.prune` removes them. A channel has one writer at a time and any number of readers.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from inttower.core.durable_files import rename_synced, sync, write_atomic
from inttower.errors import StoreError

MANIFEST = "manifest.json"
POINTER = "CURRENT"

# The pointer file holds its own history, so that both change in one write. At a version a minute
# this is two hours.
_MOVES_KEPT = 120

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a channel's pointer, at a wall time in milliseconds since the epoch."""

    version: str
    why: str
    at_ms: int


@dataclass(frozen=True, slots=True)
class Pointer:
    """Which version is current, whether a rollback holds it there, and its past moves."""

    version: str
    held: bool = False
    moves: tuple[Move, ...] = field(default=())

    def to_bytes(self) -> bytes:
        """The content of the pointer file."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Pointer:
        """The inverse of :meth:`to_bytes`; ``where`` is for the error."""
        try:
            fields = json.loads(data)
            moves = tuple(Move(**move) for move in fields.pop("moves"))
            return cls(**fields, moves=moves)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise StoreError(
                f"the pointer {where} cannot be read ({error}): remove it and name a version with"
                " rollback(channel, to=...)"
            ) from None


class ModelStore:
    """The versions of all channels under one location.

    Args:
        url: a folder, or any fsspec URL (``s3://bucket/models``, ``memory://models``).
        options: passed to the file system (credentials, endpoints).

    Raises:
        StoreError: the URL names a protocol that is not installed.

    >>> store = ModelStore("memory://example")
    >>> with store.draft("champion") as folder:
    ...     _ = (folder / "manifest.json").write_text('{"parent": null}')
    ...     store.publish("champion", "000001", folder)
    True
    >>> store.current("champion"), store.versions("champion")
    ('000001', ['000001'])
    """

    def __init__(self, url: str, **options: object) -> None:
        try:
            self._fs, self._root = fsspec.core.url_to_fs(url, **options)
        except (ValueError, ImportError) as error:
            raise StoreError(f"the model store {url!r} cannot be reached: {error}") from None
        self._local = isinstance(self._fs, LocalFileSystem)
        self._open_drafts: set[str] = set()

    def url(self, channel: str, version: str) -> str:
        """The URL of a version's folder, for :func:`inttower.publish.bundle.read_bundle`."""
        return cast(str, self._fs.unstrip_protocol(self._folder(channel, version)))

    def channels(self) -> list[str]:
        """Every channel that has a current version, sorted."""
        return sorted(
            name
            for name in self._names(self._root)
            if _NAME.fullmatch(name) and self._fs.exists(self._pointer_path(name))
        )

    def versions(self, channel: str) -> list[str]:
        """Complete versions, sorted by name; names should sort in the order of creation."""
        folder = self._channel(channel)
        return sorted(
            name
            for name in self._names(folder)
            if _NAME.fullmatch(name) and self._fs.exists(f"{folder}/{name}/{MANIFEST}")
        )

    def current(self, channel: str) -> str | None:
        """The version that the pointer names, or None before the first."""
        pointer = self.pointer(channel)
        return pointer.version if pointer else None

    def pointer(self, channel: str) -> Pointer | None:
        """The whole pointer, with its past moves."""
        path = self._pointer_path(channel)
        try:
            return Pointer.from_bytes(self._fs.cat_file(path), path)
        except FileNotFoundError:
            return None

    def manifest(self, channel: str, version: str) -> dict[str, Any]:
        """The manifest of a version, as it is stored."""
        path = f"{self._folder(channel, version)}/{MANIFEST}"
        try:
            return cast(dict[str, Any], json.loads(self._fs.cat_file(path)))
        except FileNotFoundError:
            known = ", ".join(self.versions(channel)) or "none"
            raise StoreError(
                f"channel {channel!r} has no version {version!r}; it has: {known}"
            ) from None
        except ValueError as error:
            raise StoreError(f"{path} is not JSON: {error}") from None

    @contextmanager
    def draft(self, channel: str) -> Iterator[Path]:
        """A local folder to write a new version into; removed afterwards unless published."""
        parent = None
        if self._local:
            parent = self._channel(channel)
            Path(parent).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".draft-", dir=parent))
        self._open_drafts.add(folder.name)
        try:
            yield folder
        finally:
            self._open_drafts.discard(folder.name)
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, channel: str, version: str, folder: Path) -> bool:
        """Make a version of the files in ``folder`` and point the channel at it.

        Publishing the same manifest under the same name again finishes the work of a killed writer.
        A local store moves a folder of :meth:`draft` in; any other folder is copied.

        Args:
            channel: created if it is new.
            version: not used before in this channel.
            folder: holds the files, one of them the manifest.

        Returns:
            Whether the version is current now: False while a rollback holds the pointer.

        Raises:
            StoreError: no manifest, or a version of that name with another manifest.
        """
        target = self._folder(channel, version)
        manifest = folder / MANIFEST
        if not manifest.is_file():
            raise StoreError(f"{folder} holds no {MANIFEST}: write the bundle before publishing it")
        there = f"{target}/{MANIFEST}"
        if not self._fs.exists(there):
            if self._local:
                self._move_in(channel, folder, Path(target))
            else:
                self._upload(folder, target)
        elif self._fs.cat_file(there) != manifest.read_bytes():
            raise StoreError(
                f"version {version!r} of channel {channel!r} exists and differs; a version never"
                " changes: take a new name"
            )
        before = self.pointer(channel)
        if before and before.held:
            return False
        self._point(channel, version, "publish", held=False)
        return True

    def rollback(self, channel: str, to: str | None = None) -> str:
        """Point the channel at an earlier version and hold it there until :meth:`release`.

        Without the hold, a trainer that publishes every minute would undo the rollback at once.

        Args:
            channel: must have a current version.
            to: the version; none: the parent of the current one, as its manifest says.

        Returns:
            The version that is current now.

        Raises:
            StoreError: there is no such version.
        """
        before = self.current(channel)
        if to is None:
            if before is None:
                raise StoreError(f"channel {channel!r} has no version to roll back from")
            to = self.manifest(channel, before).get("parent")
            if to is None:
                raise StoreError(
                    f"version {before!r} of channel {channel!r} has no parent: name a version,"
                    f" one of {', '.join(self.versions(channel))}"
                )
        self.manifest(channel, to)
        self._point(channel, to, f"rollback from {before}", held=True)
        return to

    def release(self, channel: str) -> str | None:
        """End a rollback's hold and point at the newest version; the current one, or None."""
        versions = self.versions(channel)
        pointer = self.pointer(channel)
        if pointer is None or not pointer.held or not versions:
            return pointer.version if pointer else None
        self._point(channel, versions[-1], "release", held=False)
        return versions[-1]

    def prune(self, channel: str, keep: int) -> list[str]:
        """Remove old versions and leftovers of killed writers; keep the current and its parent.

        Args:
            channel: only its writer may prune it.
            keep: how many of the newest versions to keep, besides the current and its parent.

        Returns:
            The versions that were removed.
        """
        versions = self.versions(channel)
        current = self.current(channel)
        stay = set(versions[max(0, len(versions) - keep) :])
        if current is not None:
            stay |= {current, self.manifest(channel, current).get("parent") or current}
        gone = [version for version in versions if version not in stay]
        for version in gone:
            self._remove_version(channel, version)
        folder = self._channel(channel)
        for name in self._names(folder):
            path = f"{folder}/{name}"
            unfinished = self._fs.isdir(path) and not self._fs.exists(f"{path}/{MANIFEST}")
            if (unfinished or name.startswith(".")) and name not in self._open_drafts:
                self._fs.rm(path, recursive=True)
        return gone

    def _channel(self, channel: str) -> str:
        return f"{self._root}/{_checked('channel', channel)}"

    def _folder(self, channel: str, version: str) -> str:
        return f"{self._channel(channel)}/{_checked('version', version)}"

    def _pointer_path(self, channel: str) -> str:
        return f"{self._channel(channel)}/{POINTER}"

    def _names(self, folder: str) -> list[str]:
        """Names in a folder; none if there is no such folder."""
        self._fs.invalidate_cache()  # a cached listing would hide other writers
        try:
            found = self._fs.ls(folder, detail=False)
        except FileNotFoundError:
            return []
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def _move_in(self, channel: str, folder: Path, target: Path) -> None:
        """Rename a synced draft to its final name."""
        if folder.parent != target.parent:
            with self.draft(channel) as draft:
                shutil.copytree(folder, draft, dirs_exist_ok=True)
                self._move_in(channel, draft, target)
            return
        for path in sorted(folder.rglob("*"), reverse=True):
            sync(path)
        if target.exists():  # no manifest, so no version: left by an upload by hand
            shutil.rmtree(target)
        folder.chmod(0o755)  # a draft is private to its writer, a version is for every reader
        rename_synced(folder, target)

    def _upload(self, folder: Path, target: str) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files.sort(key=lambda path: path == folder / MANIFEST)
        for path in files:
            name = path.relative_to(folder).as_posix()
            self._fs.pipe_file(f"{target}/{name}", path.read_bytes())

    def _point(self, channel: str, version: str, why: str, held: bool) -> None:
        before = self.pointer(channel)
        moves = before.moves if before else ()
        now = Move(version, why, time.time_ns() // 1_000_000)
        data = Pointer(version, held, (*moves, now)[-_MOVES_KEPT:]).to_bytes()
        path = self._pointer_path(channel)
        if not self._local:
            self._fs.pipe_file(path, data)
            return
        write_atomic(Path(path), data)

    def _remove_version(self, channel: str, version: str) -> None:
        """Delete the manifest first, in one step: from then on it is no version."""
        path = self._folder(channel, version)
        self._fs.rm_file(f"{path}/{MANIFEST}")
        self._fs.invalidate_cache()
        if self._fs.exists(path):  # an object store has no empty folders
            self._fs.rm(path, recursive=True)


def _checked(what: str, name: str) -> str:
    if not _NAME.fullmatch(name) or name == POINTER:
        raise StoreError(
            f"{name!r} cannot be the name of a {what}: use letters, digits, '.', '_' and '-',"
            f" a letter or digit first, and not {POINTER}"
        )
    return name
