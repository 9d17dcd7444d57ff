"""Checkpoints: all that the trainer knows at one moment, written whole or not at all.

A checkpoint holds model, optimiser, id tables, random state, metric state and the next offset of
each partition. It is a folder of named parts (safetensors files) and a manifest with the hash of
each. It is written under a temporary name, brought to the disk (fsync), then renamed: a folder that
has its final name is complete, or was damaged later, which the hashes tell. The offsets of the
sample topic lie in it and nowhere else; no consumer group commits any. No file is shared between
two checkpoints, so that one flipped byte never spoils both.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from inttower.core.durable_files import rename_synced, write_synced
from settings.errors import CheckpointError

log = logging.getLogger(__name__)

FORMAT = 3
_NAME = "checkpoint-"
_REFUSED = "refused-"
_TEMPORARY = ".tmp-"
_MANIFEST = "manifest.json"

Part = Mapping[str, "NDArray[Any] | bytes"]
M = TypeVar("M")


class _File(msgspec.Struct, frozen=True, kw_only=True):
    """One part: its hash, and which of its entries are bytes rather than arrays."""

    sha256: str
    bytes_entries: list[str]


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    number: int
    created_ms: int
    fingerprint: dict[str, str]
    meta: msgspec.Raw
    parts: dict[str, _File]


class _Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest as it is stored, with the hash of its own bytes."""

    sha256: str
    body: msgspec.Raw


@dataclass(frozen=True)
class Checkpoint:
    """What :meth:`CheckpointFolder.load` gives back.

    Attributes:
        number: counts up by one a checkpoint.
        path: its folder.
        created_ms: wall time at which it was written.
        meta: the small facts that were saved with it, as JSON.
        parts: the saved arrays and bytes, by part.
    """

    number: int
    path: Path
    created_ms: int
    meta: bytes
    parts: dict[str, dict[str, NDArray[Any] | bytes]]


class CheckpointFolder:
    """The checkpoints of one trainer, numbered; one process at a time may hold it.

    Args:
        path: the folder; made if it is not there.
        keep: how many checkpoints stay.

    It raises:
        CheckpointError: another process holds the folder.
    """

    def __init__(self, path: Path, keep: int) -> None:
        self._path = path
        self._keep = keep
        path.mkdir(parents=True, exist_ok=True)
        # held until the process ends, however it ends
        self._lock = (path / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise CheckpointError(
                f"another trainer is running on {path}: stop it first, or give this one"
                " another state folder"
            ) from None
        for left_over in path.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left_over)

    def close(self) -> None:
        """Let another process have the folder."""
        self._lock.close()

    def numbers(self) -> list[int]:
        """Numbers of the checkpoints that lie here, newest first."""
        return _numbers(self._path, _NAME)

    def save(
        self,
        meta: bytes,
        fingerprint: Mapping[str, str],
        parts: Mapping[str, Part],
    ) -> Path:
        """Write a checkpoint and delete the oldest ones.

        Args:
            meta: small facts (offsets, counters), as JSON.
            fingerprint: the settings that must be the same when it is loaded.
            parts: arrays and bytes, by part.

        It raises:
            CheckpointError: it could not be written (a full disk); the ones before are as they
                were.
        """
        newest = max([0, *self.numbers(), *_numbers(self._path, _REFUSED)])
        number = newest + 1
        temporary = self._path / f"{_TEMPORARY}{number:012d}"
        final = self._path / f"{_NAME}{number:012d}"
        try:
            if temporary.exists():  # of a save that failed earlier in this process
                shutil.rmtree(temporary)
            temporary.mkdir()
            files = {
                name: _put(temporary / f"{name}.safetensors", part) for name, part in parts.items()
            }
            manifest = _Manifest(
                format=FORMAT,
                number=number,
                created_ms=time.time_ns() // 1_000_000,
                fingerprint=dict(fingerprint),
                meta=msgspec.Raw(meta),
                parts=files,
            )
            write_synced(temporary / _MANIFEST, _seal(manifest))
            rename_synced(temporary, final)
        except OSError as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise CheckpointError(
                f"checkpoint {number} could not be written to {self._path} ({error}): the one"
                " before it is kept; free space or repair the folder"
            ) from error
        self._prune()
        return final

    def _prune(self) -> None:
        for prefix in (_NAME, _REFUSED):
            for number in _numbers(self._path, prefix)[self._keep :]:
                folder = self._path / f"{prefix}{number:012d}"
                # never half a folder under a name that counts
                doomed = self._path / f"{_TEMPORARY}old-{prefix}{number:012d}"
                folder.rename(doomed)
                shutil.rmtree(doomed)

    def load(self, fingerprint: Mapping[str, str]) -> Checkpoint | None:
        """The newest checkpoint that is whole; None if there never was one.

        A damaged one is set aside under ``refused-…`` with its reason in the log, and the one
        before it is taken.

        Args:
            fingerprint: the settings now.

        It raises:
            CheckpointError: there are checkpoints and none is whole, or the newest whole one
                was made with other settings.
        """
        refused: list[str] = []
        for number in self.numbers():
            folder = self._path / f"{_NAME}{number:012d}"
            try:
                checkpoint, manifest = _read(folder, number)
            except _DamagedError as damage:
                refused.append(f"{folder.name}: {damage}")
                log.warning("checkpoint refused, trying the one before: %s: %s", folder, damage)
                folder.rename(self._path / f"{_REFUSED}{number:012d}")
                continue
            _check_fingerprint(folder, manifest.fingerprint, fingerprint)
            return checkpoint
        if not refused and not _numbers(self._path, _REFUSED):
            return None
        raise CheckpointError(
            f"no checkpoint in {self._path} is whole ({'; '.join(refused) or 'all were refused'});"
            " put a good one back, or remove the folder: the trainer then learns all samples of"
            " the topic again"
        )


class _DamagedError(Exception):
    """Why a checkpoint cannot be used."""


def _numbers(path: Path, prefix: str) -> list[int]:
    found = (p.name.removeprefix(prefix) for p in path.glob(f"{prefix}*"))
    return sorted((int(n) for n in found if n.isdigit()), reverse=True)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _seal(manifest: _Manifest) -> bytes:
    body = msgspec.json.encode(manifest)
    return msgspec.json.encode(_Sealed(sha256=_sha256(body), body=msgspec.Raw(body)))


def _pack(part: Part) -> tuple[bytes, list[str]]:
    entries = sorted(name for name, value in part.items() if isinstance(value, bytes))
    arrays = {
        name: np.frombuffer(value, np.uint8)
        if isinstance(value, bytes)
        else np.ascontiguousarray(value).reshape(value.shape)
        for name, value in part.items()
    }
    return save_arrays(arrays), entries


def _put(path: Path, part: Part) -> _File:
    data, entries = _pack(part)
    write_synced(path, data)
    return _File(sha256=_sha256(data), bytes_entries=entries)


def _unpack(data: bytes, entries: Iterable[str]) -> dict[str, NDArray[Any] | bytes]:
    values: dict[str, NDArray[Any] | bytes] = dict(load_arrays(data))
    for name in entries:
        array = values[name]
        values[name] = array if isinstance(array, bytes) else array.tobytes()
    return values


def _decode(data: bytes, type_: type[M], what: str) -> M:
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.MsgspecError as error:
        raise _DamagedError(f"{what} cannot be read ({error})") from None


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _DamagedError(f"{path.name} is missing") from None
    except OSError as error:
        raise _DamagedError(f"{path.name} cannot be read ({error})") from None


def _read(folder: Path, number: int) -> tuple[Checkpoint, _Manifest]:
    sealed = _decode(_read_file(folder / _MANIFEST), _Sealed, "the manifest")
    if _sha256(bytes(sealed.body)) != sealed.sha256:
        raise _DamagedError("the manifest has another hash than it says")
    # the format first: a newer one may have other fields
    version = _decode(bytes(sealed.body), dict[str, Any], "the manifest").get("format")
    if version != FORMAT:
        raise CheckpointError(
            f"{folder} has format {version}, this headrace reads {FORMAT}: run the version that"
            " wrote it, or remove the folder to learn all samples again"
        )
    manifest = _decode(bytes(sealed.body), _Manifest, "the manifest")
    if manifest.number != number:
        raise _DamagedError(f"the manifest is that of checkpoint {manifest.number}")
    parts = {}
    for name, file in manifest.parts.items():
        data = _read_file(folder / f"{name}.safetensors")
        if _sha256(data) != file.sha256:
            raise _DamagedError(f"{name}.safetensors has another hash than the manifest says")
        try:
            parts[name] = _unpack(data, file.bytes_entries)
        except SafetensorError as error:
            raise _DamagedError(f"{name}.safetensors cannot be read ({error})") from None
    checkpoint = Checkpoint(
        number=number,
        path=folder,
        created_ms=manifest.created_ms,
        meta=bytes(manifest.meta),
        parts=parts,
    )
    return checkpoint, manifest


def _check_fingerprint(folder: Path, then: Mapping[str, str], now: Mapping[str, str]) -> None:
    changed = [
        f"{name} was {then.get(name, 'unset')}, is {now.get(name, 'unset')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]
    if changed:
        raise CheckpointError(
            f"{folder} was made with other settings ({'; '.join(changed)}): set them back, or"
            f" remove {folder.parent} to learn all samples again with the new ones"
        )
