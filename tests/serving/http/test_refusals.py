"""A bad version never serves: it is refused with the reason, and the one before serves on."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load, save

from inttower.core.spec import FeatureSpec
from tests.serving.conftest import NOW, Models

if TYPE_CHECKING:
    from inttower.models.inttower import IntTower
    from tests.serving.conftest import World

Damage = Callable[[Path], object]
_versions = (f"{number:06d}" for number in itertools.count(2))


def altered(name: str, change: Callable[[bytes], bytes]) -> Damage:
    """Change a file of a version, and the manifest with it, so that the hashes fit."""

    def damage(folder: Path) -> None:
        content = change((folder / name).read_bytes())
        (folder / name).write_bytes(content)
        manifest = json.loads((folder / "manifest.json").read_bytes())
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
        (folder / "manifest.json").write_text(json.dumps(manifest))

    return damage


def manifest_with(**fields: object) -> Damage:
    def damage(folder: Path) -> None:
        path = folder / "manifest.json"
        path.write_text(json.dumps({**json.loads(path.read_bytes()), **fields}))

    return damage


def one_bit_flipped(folder: Path) -> None:
    path = folder / "items.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def with_number(value: float, name: str | None = None) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        arrays = load(content)
        array = arrays[name or next(key for key in sorted(arrays) if arrays[key].size)]
        array.flat[0] = value
        return bytes(save(arrays))

    return change


def golden_off(content: bytes) -> bytes:
    golden = json.loads(content)
    golden["logits"][1] += 0.01
    return json.dumps(golden).encode()


def missing(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def cut(name: str) -> Damage:
    return altered(name, lambda content: content[: len(content) // 2])


BAD_VERSIONS: dict[str, tuple[Damage, str]] = {
    "flipped": (one_bit_flipped, "SHA-256"),
    **{
        f"no {name}": (missing(name), f"no {name}")
        for name in ("dense.safetensors", "items.safetensors", "ids.json", "golden.json")
    },
    "nan weight": (altered("dense.safetensors", with_number(np.nan)), "finite"),
    "infinite item": (altered("items.safetensors", with_number(np.inf)), "finite"),
    "nan row": (altered("rows.safetensors", with_number(np.nan, "users")), "finite"),
    "golden": (altered("golden.json", golden_off), "golden row 1"),
    "other weights": (altered("rows.safetensors", with_number(3.0, "users")), "golden row"),
    "no golden": (altered("golden.json", lambda _: b'{"columns": {}, "logits": []}'), "golden"),
    "cut weights": (cut("dense.safetensors"), "dense.safetensors"),
    "cut ids": (cut("ids.json"), r"ids.json"),
    "no manifest": (lambda folder: (folder / "manifest.json").write_bytes(b"{"), "manifest.json"),
    "format": (manifest_with(format=99), "format 99"),
    "model": (manifest_with(model="Oracle"), "Oracle"),
    "spec": (manifest_with(spec=[]), "spec"),
    "metrics": (manifest_with(metrics={"window": {"online": {"auc": "high"}}}), "auc"),
    "no metrics": (manifest_with(metrics={"window": None}), "window"),
}


def is_refused(
    world: World,
    model: IntTower,
    reason: str,
    detail: str,
    *,
    damage: Damage | None = None,
    auc: float | None = None,
) -> str:
    """Publish a version that must be refused, while the one before serves on; its name."""
    version = next(_versions)
    serves, scores = world.serving(), world.rank("u3")["items"]
    labels = {"channel": "champion", "reason": reason}
    count = world.metric("headrace_versions_refused_total", **labels)
    world.publish(model, version, damage=damage, auc=auc)
    world.until(lambda: any(version in r["what"] for r in world.versions()["refused"]))
    refused = world.versions()["refused"][0]
    assert (refused["what"], refused["reason"]) == (f"version {version}", reason)
    assert detail in refused["detail"]
    assert world.metric("headrace_versions_refused_total", **labels) == count + 1
    assert world.serving() == serves
    assert world.rank("u3")["items"] == scores
    assert world.http.get("/readyz").is_success
    return version


@pytest.fixture(scope="module")
def other(models: Models) -> IntTower:
    """Another model: what it scores cannot be taken for the first one's."""
    return models.train(seed=2)


@pytest.mark.parametrize(("damage", "detail"), BAD_VERSIONS.values(), ids=BAD_VERSIONS)
def test_a_bad_version_is_refused(
    shared: World, other: IntTower, damage: Damage, detail: str
) -> None:
    is_refused(shared, other, "bundle", detail, damage=damage)


@pytest.mark.parametrize("field", ["gender", "decade"])
def test_a_version_of_another_declaration_is_refused(
    shared: World, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    """Sound in itself, but the server has not got the columns to encode anybody with it."""
    foreign = Models()
    for columns in (foreign.columns, foreign.items):
        if field in columns:
            columns["mood"] = columns.pop(field)
    foreign.spec = FeatureSpec(
        tuple(replace(f, name="mood") if f.name == field else f for f in foreign.spec.fields)
    )
    with monkeypatch.context() as patch:
        patch.setattr(shared, "models", foreign)
        is_refused(shared, foreign.train(seed=1), "bundle", "mood")


def test_the_quality_gate(shared: World, model: IntTower, other: IntTower) -> None:
    """0.97 of the AUC that serves is the limit; figures that are not told cannot fail."""
    good = next(_versions)
    shared.publish(model, good, auc=0.80)
    shared.until(lambda: shared.serving() == (good, -1))
    bad = is_refused(shared, other, "quality", "0.7700 is below 0.97 of 0.8000", auc=0.77)
    assert "headrace rollback" in shared.versions()["refused"][0]["detail"]
    just, untold = next(_versions), next(_versions)
    shared.publish(other, just, auc=0.78)
    shared.until(lambda: shared.serving() == (just, -1))
    shared.publish(model, untold)
    shared.until(lambda: shared.serving() == (untold, -1))
    # a person may want what the gate does not: a rollback passes it
    shared.publish(model, good := next(_versions), auc=0.80)
    shared.until(lambda: shared.serving() == (good, -1))
    shared.store.rollback("champion", to=bad)
    shared.until(lambda: shared.serving() == (bad, -1), timeout_s=2.5)
    shared.store.resume("champion")
    shared.until(lambda: shared.serving() == (good, -1), timeout_s=2.5)


# ---------------------------------------------------------------------- deltas


EMPTY: dict[str, Any] = {
    "type": "delta",
    "channel": "champion",
    "created_ms": NOW,
    **dict.fromkeys(("user_ids", "user_ts", "item_ids", "item_ts"), ()),
    **dict.fromkeys(("user_rows", "item_vectors", "item_rows"), b""),
}


def numbers(count: int, value: float = 1.0) -> bytes:
    return np.full(count, value, "<f4").tobytes()


USER = {"user_ids": ["u1"], "user_ts": [NOW]}
ITEM = {"item_ids": ["i1"], "item_ts": [NOW]}
BAD_DELTAS: dict[str, tuple[dict[str, Any], str]] = {
    "no times": ({"user_ids": ["u1"], "user_rows": numbers(8)}, "lengths"),
    "more times": ({**ITEM, "item_ts": [NOW, NOW]}, "lengths"),
    "half a number": ({**USER, "user_rows": numbers(8)[:-2]}, "lengths"),
    "rows of nobody": ({"item_rows": numbers(8)}, "lengths"),
    "nan": ({**USER, "user_rows": numbers(8, np.nan)}, "not_finite"),
    "infinite": ({**ITEM, "item_vectors": numbers(8, np.inf)}, "not_finite"),
    "wide": ({**USER, "user_rows": numbers(99)}, "width"),
    "narrow": ({**ITEM, "item_vectors": numbers(1), "item_rows": numbers(1)}, "width"),
    "no rows": ({**USER}, "width"),
    "one of two": ({**ITEM, "item_rows": numbers(9)}, "width"),
    "made at no time": ({"created_ms": msgspec.Raw(b"9" * 400)}, "time"),
    "made before 1970": ({"created_ms": -1}, "time"),
    "400 digits": ({**USER, "user_ts": [msgspec.Raw(b"9" * 400)], "user_rows": numbers(8)}, "time"),
    "beyond all time": ({**USER, "user_ts": [2**63], "user_rows": numbers(8)}, "time"),
}


@pytest.mark.parametrize(("fields", "reason"), BAD_DELTAS.values(), ids=BAD_DELTAS)
def test_a_bad_delta_is_refused_as_a_whole(
    shared: World, fields: dict[str, Any], reason: str
) -> None:
    serves, scores = shared.serving(), shared.rank("u1")["items"]
    assert serves is not None
    delta = msgspec.json.encode({**EMPTY, "base_version": serves[0], **fields})
    number = shared.send_update(delta)
    shared.until(lambda: shared.versions()["refused"][0]["what"] == f"delta {number}")
    assert shared.versions()["refused"][0]["reason"] == reason
    assert shared.serving() == serves
    assert shared.rank("u1")["items"] == scores
    assert shared.metric("headrace_channel_deltas_total", channel="champion", outcome="refused") > 0


NO_UPDATES = [
    *(b"", b"{", b"\xff", None, b"[]", b'{"type": "news"}'),
    b'{"type": "version", "channel": "\xff", "version": "1", "created_ms": 1}',
    b'{"type": "delta", "user_ids": ' + b'{"a":' * 100_000,
    msgspec.json.encode({**EMPTY, "base_version": "000001", "user_rows": "no base64"}),
    msgspec.json.encode({**EMPTY, "base_version": "000001", "channel": "elsewhere"}),
]


def test_what_is_no_update_is_passed_over(shared: World) -> None:
    """A record that ends the follower would end it again after each restart."""
    for value in NO_UPDATES:
        shared.send_update(value)
    serves = shared.serving()
    assert serves is not None
    number = shared.send_delta(serves[0])
    shared.until(lambda: shared.serving() == (serves[0], number))
    passed = shared.metric("headrace_follower_errors_total", source="record")
    assert passed == len(NO_UPDATES) - 1  # one is of a channel that others follow
