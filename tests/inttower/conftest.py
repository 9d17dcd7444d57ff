"""A small world whose clicks can be learnt: users and items of two kinds, and a counter each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from inttower.core.spec import FeatureSpec, Field

Toy = tuple[dict[str, Any], npt.NDArray[np.uint8]]

SPEC = FeatureSpec(
    (
        Field("user_id", "user", "sparse", is_id=True),
        Field("taste", "user", "sparse"),
        Field("liked", "user", "sequence", of="item_id", max_length=5),
        Field("activity", "user", "dense"),
        Field("state", "user", "dense", width=3),
        Field("item_id", "item", "sparse", is_id=True),
        Field("genres", "item", "multi", max_length=3),
        Field("rate", "item", "dense"),
        Field("factors", "item", "dense", width=3),
    )
)


def make_toy(rows: int, seed: int = 0, users: int = 40, items: int = 30) -> Toy:
    """Columns and labels 0/1; a user clicks items of its own kind, and popular ones."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, users, rows), rng.integers(0, items, rows)
    rate = np.sin(item).astype(np.float32)
    match = np.where(user % 2 == item % 2, 1.0, -1.0)
    labels = (rng.random(rows) < 1 / (1 + np.exp(-3 * match - rate))).astype(np.uint8)
    history = rng.integers(0, items, (rows, 7))
    lengths = rng.integers(0, 8, rows)
    columns: dict[str, Any] = {
        "user_id": [f"u{u}" for u in user],
        "taste": ["even" if u % 2 == 0 else "odd" for u in user],
        "liked": [
            [f"i{i}" for i in ids[:n]] for ids, n in zip(history.tolist(), lengths, strict=True)
        ],
        "activity": rng.normal(size=rows).astype(np.float32),
        "state": rng.normal(size=(rows, 3)).astype(np.float32),
        "item_id": [f"i{i}" for i in item],
        "genres": [[f"g{i % 2}", f"h{i % 5}"][: i % 3] for i in item],
        "rate": rate,
        "factors": rng.normal(size=(rows, 3)).astype(np.float32),
    }
    return columns, labels


@pytest.fixture(scope="session")
def spec() -> FeatureSpec:
    """The fields of the toy: every kind on either side that has it."""
    return SPEC


@pytest.fixture(scope="session")
def toy() -> Callable[..., Toy]:
    """See :func:`make_toy`."""
    return make_toy
