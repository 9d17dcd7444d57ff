"""The model store: a folder a channel, a folder a version, a pointer to the current version.

    STORE/champion/000012/manifest.json ...    a version: a folder that never changes
    STORE/champion/CURRENT                     the newest version that was published
    STORE/champion/HELD                        the version that a rollback holds, if any
    STORE/champion/000012.refused.json         why no server may serve this version

The store is a local folder or any location that fsspec reaches. A writer that is killed at any
moment never shows half a version: **a version is a folder with a manifest in it**, the manifest is
written last, and the pointer moves after that. Each of the small files is replaced as a whole and
has one kind of writer: the trainer publishes, a person rolls back, servers refuse. So a rollback
that happens while a version is being published is not overwritten by it.

- Local folder: the files are written to a draft folder next to the versions and synced to disk,
  then the folder is renamed. A small file is written to a temporary file, synced, and renamed.
- Object store, which cannot rename a folder: the files are uploaded, the manifest last, then the
  pointer; each upload is atomic.

Leftovers of a killed writer (drafts, folders without manifest) are never listed;
:meth:`ModelStore.prune` removes them. A channel has one publisher at a time and any number of
readers.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from inttower.core.durable_files import rename_synced, sync, write_atomic
from inttower.errors import StoreError
from inttower.publish.pointer import MOVES_KEPT, Move, Place, Pointer, Refusal

MANIFEST = "manifest.json"
POINTER = "CURRENT"
HELD = "HELD"
_REFUSED = ".refused.json"
_DRAFT = ".draft-"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


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
        """The URL of a version's folder."""
        return cast(str, self._fs.unstrip_protocol(self._folder(channel, version)))

    def channels(self) -> list[str]:
        """Every channel that has a current version, sorted."""
        return sorted(
            name
            for name in self._names(self._root)
            if _NAME.fullmatch(name) and self._fs.exists(self._pointer_path(name))
        )

    def versions(self, channel: str) -> list[str]:
        """Complete versions, sorted by name: give names that sort in the order of their making."""
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
        """Which version is current: the one that a rollback holds, else the newest published."""
        newest, held = self._place(channel, POINTER), self._place(channel, HELD)
        version = (held and held.version) or (newest and newest.version)
        if not version:
            return None
        moves = [*(newest.moves if newest else ()), *(held.moves if held else ())]
        return Pointer(
            version,
            held is not None and held.version is not None,
            tuple(sorted(moves, key=lambda move: move.at_ms)),
        )

    def served(self, channel: str) -> str | None:
        """The version that servers should have: held, or the newest that none has refused."""
        pointer = self.pointer(channel)
        if pointer is None or pointer.held:
            return pointer.version if pointer else None
        for version in reversed(self.versions(channel)):
            if version <= pointer.version and self.refusal(channel, version) is None:
                return version
        return None

    def refuse(self, channel: str, version: str, reason: str, detail: str) -> None:
        """Keep that a version may not serve, for every server and after every restart.

        A rollback to it overrides this. It is forgotten with the version.
        """
        refusal = Refusal(version, reason, detail, time.time_ns() // 1_000_000)
        path = self._folder(channel, version) + _REFUSED
        self._write_small(path, json.dumps(asdict(refusal), indent=1).encode())

    def refusal(self, channel: str, version: str) -> Refusal | None:
        """Why a version may not serve; None: nobody has refused it."""
        path = self._folder(channel, version) + _REFUSED
        try:
            return Refusal(**json.loads(self._fs.cat_file(path)))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise StoreError(
                f"{path} cannot be read ({error}): remove it, and servers will judge the version"
                " again"
            ) from None

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
        """A local folder to write a new version into; gone afterwards unless published."""
        parent = None
        if self._local:
            parent = self._channel(channel)
            Path(parent).mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=parent))
        self._open_drafts.add(folder.name)
        try:
            yield folder
        finally:
            self._open_drafts.discard(folder.name)
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, channel: str, version: str, folder: Path) -> bool:
        """Make a version of the files in ``folder`` and point the channel at it.

        Publishing the same manifest under the same name again finishes what a killed writer
        began. A local store takes a folder of :meth:`draft` away; any other folder is copied.

        Args:
            channel: made when new.
            version: not used before in this channel.
            folder: holds the files, one of them the manifest.

        Returns:
            Whether the version is current now: not while a rollback holds another.

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
        self._put(channel, POINTER, version, Move(version, "publish", time.time_ns() // 1_000_000))
        held = self._place(channel, HELD)
        return held is None or held.version is None

    def rollback(self, channel: str, to: str | None = None) -> str:
        """Point the channel at an earlier version and hold it there until :meth:`resume`.

        Without the hold, a trainer that publishes every minute would undo it at once.

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
        move = Move(to, f"rollback from {before}", time.time_ns() // 1_000_000)
        self._put(channel, HELD, to, move)
        return to

    def resume(self, channel: str) -> str | None:
        """End a rollback's hold: the newest published version is current again; its name."""
        newest, held = self._place(channel, POINTER), self._place(channel, HELD)
        version = newest.version if newest else None
        if held is not None and held.version is not None and version is not None:
            move = Move(version, "resume", time.time_ns() // 1_000_000)
            self._put(channel, HELD, None, move)
        return version

    def prune(self, channel: str, keep: int) -> list[str]:
        """Remove old versions and what killed writers left; what serves and its parent stay.

        Args:
            channel: only its writer may prune it.
            keep: how many of the newest versions stay; so do the newest published, the one that
                serves (:meth:`served`), and the parent of each.

        Returns:
            The versions that were removed.
        """
        versions = self.versions(channel)
        stay = set(versions[max(0, len(versions) - keep) :])
        newest = self._place(channel, POINTER)
        for current in (newest.version if newest else None, self.served(channel)):
            if current is not None:
                stay |= {current, self.manifest(channel, current).get("parent") or current}
        gone = [version for version in versions if version not in stay]
        for version in gone:
            self._remove_version(channel, version)
        folder = self._channel(channel)
        for name in self._names(folder):
            path = f"{folder}/{name}"
            # files of other writers may be under way: a rollback, a refusal
            left = name.startswith((_DRAFT, f".{POINTER}-"))
            left |= self._fs.isdir(path) and not self._fs.exists(f"{path}/{MANIFEST}")
            if name.endswith(_REFUSED) and not name.startswith("."):
                left = name.removesuffix(_REFUSED) not in self.versions(channel)
            if left and name not in self._open_drafts:
                self._fs.rm(path, recursive=True)
        return gone

    def _channel(self, channel: str) -> str:
        return f"{self._root}/{_checked('channel', channel)}"

    def _folder(self, channel: str, version: str) -> str:
        return f"{self._channel(channel)}/{_checked('version', version)}"

    def _pointer_path(self, channel: str) -> str:
        return f"{self._channel(channel)}/{POINTER}"

    def _names(self, folder: str) -> list[str]:
        """The entries of a folder; empty when there is no such folder."""
        self._fs.invalidate_cache()  # a listing that is kept would hide other writers
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
        if target.exists():  # without a manifest, so no version: a remnant of an upload by hand
            shutil.rmtree(target)
        folder.chmod(0o755)  # a draft is private to its writer, a version is for every reader
        rename_synced(folder, target)

    def _upload(self, folder: Path, target: str) -> None:
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        files.sort(key=lambda path: path == folder / MANIFEST)
        for path in files:
            name = path.relative_to(folder).as_posix()
            self._fs.pipe_file(f"{target}/{name}", path.read_bytes())

    def _place(self, channel: str, name: str) -> Place | None:
        path = f"{self._channel(channel)}/{name}"
        try:
            return Place.from_bytes(self._fs.cat_file(path), path)
        except FileNotFoundError:
            return None

    def _put(self, channel: str, name: str, version: str | None, move: Move) -> None:
        before = self._place(channel, name)
        moves = (*(before.moves if before else ()), move)[-MOVES_KEPT:]
        self._write_small(f"{self._channel(channel)}/{name}", Place(version, moves).to_bytes())

    def _write_small(self, path: str, data: bytes) -> None:
        if self._local:
            write_atomic(Path(path), data)
        else:
            self._fs.pipe_file(path, data)

    def _remove_version(self, channel: str, version: str) -> None:
        """Take away the manifest first, in one step: from then on it is no version."""
        path = self._folder(channel, version)
        self._fs.rm_file(f"{path}/{MANIFEST}")
        self._fs.invalidate_cache()
        if self._fs.exists(path):  # an object store has no empty folders
            self._fs.rm(path, recursive=True)


def _checked(what: str, name: str) -> str:
    if not _NAME.fullmatch(name) or name in {POINTER, HELD} or name.endswith(_REFUSED):
        raise StoreError(
            f"{name!r} cannot be the name of a {what}: use letters, digits, '.', '_' and '-',"
            f" a letter or digit first, and neither {POINTER}, {HELD} nor NAME{_REFUSED}"
        )
    return name
