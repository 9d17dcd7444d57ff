"""The loops that bring rows to a network and gradients back, against what torch makes of it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inttower.core.batch import EMPTY, IntArray
from inttower.core.gather import NOWHERE, bag_means, field_means, number


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 40), st.integers(1, 12), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_rows_are_numbered_once_each(batch: int, columns: int, table: int, seed: int) -> None:
    rows = np.random.default_rng(seed).integers(EMPTY, table, (batch, columns)).astype(np.int32)
    place, places = np.full(table, NOWHERE), np.empty_like(rows)
    found = number(rows, place, places)
    assert sorted(found) == sorted(set(rows.ravel()) - {EMPTY})
    assert (place == NOWHERE).all()
    there = rows != EMPTY
    np.testing.assert_array_equal(places == EMPTY, ~there)
    np.testing.assert_array_equal(found[places[there]], rows[there])


@st.composite
def _fields(draw: st.DrawFn) -> tuple[IntArray, IntArray]:
    sizes = st.lists(st.integers(1, 4), min_size=1, max_size=4)
    users, items = draw(sizes), draw(sizes)
    ends = np.cumsum([0, *users, *items])
    return ends[: len(users) + 1], ends[len(users) :]


@settings(deadline=None)
@given(_fields(), st.integers(1, 20), st.integers(1, 9), st.integers(0, 3), st.integers(0, 999))
def test_means_and_their_gradients_are_those_of_an_embedding_bag(
    sides: tuple[IntArray, IntArray], batch: int, width: int, extra: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    # lists are filled from the left, and may be empty
    filled = [draw.integers(0, w + 1, batch) for s in sides for w in np.diff(s)]
    places = np.full((batch, sides[1][-1]), EMPTY, np.int32)
    for start, lengths in zip(np.concatenate([s[:-1] for s in sides]), filled, strict=True):
        for row, length in enumerate(lengths):
            places[row, start : start + length] = draw.integers(0, 6, length)
    values = torch.from_numpy(draw.normal(size=(6, width + 1 + extra)).astype(np.float32))
    found = []
    for means in (field_means, bag_means):
        leaf = values.clone().requires_grad_(True)
        parts = means(leaf, places, sides, width)
        weights = [torch.linspace(-1, 2, part.numel()).view_as(part) for part in parts]
        loss = torch.stack([(p * w).sum() for p, w in zip(parts, weights, strict=True)]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        assert leaf.grad is not None
        found.append([*parts, leaf.grad])
    for ours, wanted in zip(*found, strict=True):
        assert ours.shape == wanted.shape
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
