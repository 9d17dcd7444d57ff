"""A version on disk: a folder that is written once and checked as a whole before it serves.

    manifest.json        what the version is, and the SHA-256 of every other file
    dense.safetensors    the network's weights and the scaling of dense fields
    rows.safetensors     learnt rows: of users, of items, of every other field's ids
    items.safetensors    the item vectors, encoded
    ids.json             the ids, in the order of their rows
    golden.json          golden scores: a few rows and the logits that the model gave them

The manifest is written last: a folder without one is no version. :mod:`inttower.publish.store`
knows where versions are and which one is current.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import fsspec
import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from inttower.core.batch import FloatArray
from inttower.core.contract import Columns, Decoupled
from inttower.core.durable_files import rename_synced, sync, write_synced
from inttower.core.spec import FeatureSpec, Field
from inttower.errors import BundleError, SpecError
from inttower.publish.encoders import ENCODERS
from inttower.publish.snapshot import ModelSnapshot

FORMAT = 1
MANIFEST = "manifest.json"
_FILES = ("dense.safetensors", "rows.safetensors", "items.safetensors", "ids.json", "golden.json")
# Encoders and network sum in different orders; a larger difference means another model
_TOLERANCE = 1e-4

M = TypeVar("M")


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The manifest: what a version is.

    Attributes:
        version: its name, unique in its channel.
        channel: the line of versions it belongs to.
        parent: the version before it; None for the first.
        created_ms: wall time.
        model: name of the model class.
        config: its configuration.
        spec: the feature spec, as JSON.
        files: SHA-256 of each file, by name.
        offsets: the next offset of each partition of the samples: what it has not learnt.
        updates_offset: deltas of the channel from this offset on are applied on top of it.
        metrics: figures at the time of writing.
        format: of the folder.
    """

    version: str
    channel: str
    parent: str | None
    created_ms: int
    model: str
    config: dict[str, Any]
    spec: list[dict[str, Any]]
    files: dict[str, str]
    offsets: dict[str, int]
    updates_offset: int
    metrics: dict[str, Any]
    format: int


class _Ids(msgspec.Struct, frozen=True, kw_only=True):
    users: list[str]
    items: list[str]
    fields: dict[str, list[str]]


class _Golden(msgspec.Struct, frozen=True, kw_only=True):
    columns: dict[str, list[Any]]
    logits: list[float]


@dataclass(frozen=True)
class LoadedVersion(ModelSnapshot):
    """A version that has passed every check, with its manifest."""

    manifest: Manifest


# ---------------------------------------------------------------------- writing


def write_bundle(
    folder: Path,
    model: Decoupled,
    held: ModelSnapshot,
    golden: Columns,
    *,
    version: str,
    channel: str,
    created_ms: int,
    parent: str | None = None,
    offsets: Mapping[str, int] | None = None,
    updates_offset: int = 0,
    metrics: Mapping[str, Any] | None = None,
) -> Manifest:
    """Write a version into a local folder, synced to disk, the manifest last.

    Args:
        folder: an empty one (a draft of the store), or a new one, which appears as a whole.
        model: the model of ``held``, unchanged since: it gives the golden logits.
        held: from :func:`contents`.
        golden: columns of both sides for a few rows.
        version: see :class:`Manifest`, as for all that follow.
        channel: the line of versions.
        created_ms: wall time.
        parent: the version before.
        offsets: of the samples.
        updates_offset: of the deltas.
        metrics: as JSON can hold them.

    Raises:
        BundleError: the folder holds something, or the version would not pass its own checks
            (a weight that is not finite).
    """
    data = _files(model, held, golden)
    manifest = Manifest(
        version=version,
        channel=channel,
        parent=parent,
        created_ms=created_ms,
        model=held.base.model,
        config=held.base.config,
        spec=held.base.spec.to_json(),
        files={name: hashlib.sha256(content).hexdigest() for name, content in data.items()},
        offsets=dict(offsets or {}),
        updates_offset=updates_offset,
        metrics=dict(metrics or {}),
        format=FORMAT,
    )
    _open(manifest, data)
    data[MANIFEST] = msgspec.json.format(msgspec.json.encode(manifest))
    if folder.exists():
        if any(folder.iterdir()):
            raise BundleError(
                f"{folder} is not empty: a version is written once, into a new folder"
            )
        _write(folder, data)
        sync(folder)
        return manifest
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=folder.parent))
    try:
        _write(draft, data)
        rename_synced(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _files(model: Decoupled, held: ModelSnapshot, golden: Columns) -> dict[str, bytes]:
    arrays = held.base.arrays
    rows = {name: array for name, array in arrays.items() if name.startswith("rows.")}
    dense = {name: array for name, array in arrays.items() if name not in rows}
    ids = _Ids(users=list(held.user_ids), items=list(held.item_ids), fields=held.base.vocabularies)
    kept = {f.name: _plain(f, golden[f.name]) for f in model.spec.fields}
    logits = model.predict(model.encode(golden, admit=False))
    expected = _Golden(columns=kept, logits=[float(x) for x in logits])
    return {
        "dense.safetensors": _pack(dense),
        "rows.safetensors": _pack({**rows, "users": held.user_rows, "items": held.item_rows}),
        "items.safetensors": _pack({"vectors": held.item_vectors}),
        "ids.json": msgspec.json.encode(ids),
        "golden.json": msgspec.json.encode(expected),
    }


def _plain(field: Field, column: Sequence[Any] | FloatArray) -> list[Any]:
    """A column in a form that JSON can hold; a missing number (NaN) is null."""
    if field.kind == "dense":
        numbers = np.asarray(column, np.float32)
        plain: list[Any] = np.where(np.isnan(numbers), np.array(None), numbers).tolist()
        return plain
    return [row if field.kind == "sparse" else list(row) for row in column]


def _pack(arrays: Mapping[str, FloatArray]) -> bytes:
    # ascontiguousarray turns a single number into a vector: restore the shape
    packed = {k: np.ascontiguousarray(v, np.float32).reshape(v.shape) for k, v in arrays.items()}
    data: bytes = save_arrays(packed)
    return data


def _write(folder: Path, data: Mapping[str, bytes]) -> None:
    for name, content in data.items():
        write_synced(folder / name, content)


# ---------------------------------------------------------------------- reading


def read_bundle(url: str) -> LoadedVersion:
    """Read a version and check all of it.

    Args:
        url: of its folder, for fsspec; or a path.

    Raises:
        BundleError: a file is missing or has another hash than the manifest says, shapes do not
            fit, a number is not finite, or the golden rows get other logits.
    """
    files, root = fsspec.core.url_to_fs(url)

    def fetch(name: str) -> bytes:
        try:
            content: bytes = files.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            raise BundleError(f"{url} has no {name}: it is incomplete, publish it again") from None
        return content

    manifest = _decode(fetch(MANIFEST), Manifest, MANIFEST)
    if manifest.format != FORMAT:
        raise BundleError(
            f"{url} has format {manifest.format}, this library reads {FORMAT}: use the version"
            " of the library that wrote it"
        )
    data = {}
    for name in _FILES:
        content = data[name] = fetch(name)
        found = hashlib.sha256(content).hexdigest()
        if found != manifest.files.get(name):
            raise BundleError(
                f"{name} of {url} was altered: its SHA-256 is {found}, the manifest says"
                f" {manifest.files.get(name)}"
            )
    return _open(manifest, data)


def _open(manifest: Manifest, data: Mapping[str, bytes]) -> LoadedVersion:
    ids = _decode(data["ids.json"], _Ids, "ids.json")
    arrays: dict[str, dict[str, FloatArray]] = {}
    for name in _FILES:
        if name.endswith(".safetensors"):
            arrays[name] = _unpack(name, data[name])
    rows = arrays["rows.safetensors"]
    held = {**arrays["dense.safetensors"], **rows}
    if manifest.model not in ENCODERS:
        raise BundleError(
            f"the manifest names the model {manifest.model!r}, which cannot be served; there are"
            f" {', '.join(sorted(ENCODERS))}"
        )
    try:
        served = LoadedVersion(
            base=ENCODERS[manifest.model](
                FeatureSpec.from_json(manifest.spec),
                manifest.config,
                {name: array for name, array in held.items() if name not in {"users", "items"}},
                ids.fields,
            ),
            user_ids=ids.users,
            user_rows=held["users"],
            item_ids=ids.items,
            item_vectors=arrays["items.safetensors"]["vectors"],
            item_rows=held["items"],
            manifest=manifest,
        )
    except KeyError as error:
        raise BundleError(f"rows.safetensors or items.safetensors has no array {error}") from None
    except SpecError as error:
        raise BundleError(
            f"manifest.json holds no feature spec that can be served: {error}"
        ) from None
    _check_shapes(served)
    _check_golden(served, _decode(data["golden.json"], _Golden, "golden.json"))
    return served


def _decode(content: bytes, type_: type[M], name: str) -> M:
    try:
        return msgspec.json.decode(content, type=type_)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{name} cannot be read: {error}") from None


def _unpack(name: str, content: bytes) -> dict[str, FloatArray]:
    try:
        arrays: dict[str, FloatArray] = load_arrays(content)
    except SafetensorError as error:
        raise BundleError(f"{name} cannot be read: {error}") from None
    for key, array in arrays.items():
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise BundleError(
                f"{key!r} in {name} holds a value that is not a finite float32 number"
            )
    return arrays


def _check_shapes(served: LoadedVersion) -> None:
    base = served.base
    users, items = len(served.user_ids), len(served.item_ids)
    expected = {
        "items' vectors": (served.item_vectors.shape, (items, base.item_width)),
        "items' rows": (served.item_rows.shape, (items, base.row_width)),
        "users' rows": (served.user_rows.shape[:1], (users,)),
    }
    for field, vocabulary in base.vocabularies.items():
        rows = base.arrays.get(f"rows.{field}", np.zeros((0, 0), np.float32))
        expected[f"rows of {field!r}"] = (rows.shape, (len(vocabulary) + 1, base.row_width))
    for what, (found, needed) in expected.items():
        if found != needed:
            raise BundleError(f"{what} have shape {found}, {needed} is needed")
    if served.user_rows.ndim != 2 or served.user_rows.shape[1] < base.row_width:
        raise BundleError(
            f"users' rows have shape {served.user_rows.shape}, at least {base.row_width} numbers"
            " each are needed"
        )


def _check_golden(served: LoadedVersion, golden: _Golden) -> None:
    columns: dict[str, Any] = dict(golden.columns)
    for field in served.base.spec.fields:
        if field.kind == "dense" and field.name in columns:
            columns[field.name] = np.array(columns[field.name], np.float32)  # null: NaN
    try:
        logits = served.logits(columns)
    except (KeyError, ValueError, SpecError) as error:
        raise BundleError(
            f"the golden rows cannot be scored, so weights and manifest do not fit: {error}"
        ) from error
    wanted = np.array(golden.logits, np.float32)
    if not len(wanted) or logits.shape != wanted.shape:
        raise BundleError(f"golden.json has {len(wanted)} logits for {len(logits)} rows")
    off = np.abs(logits - wanted) - _TOLERANCE * np.maximum(1, np.abs(wanted))
    if not (off <= 0).all():
        at = int(np.argmax(off))
        raise BundleError(
            f"golden row {at} gets {logits[at]:.6f} and should get {wanted[at]:.6f}: the weights"
            " are not those that were published"
        )
