"""Embedding lookup: the mean of each field's rows, and the gradients of those rows.

On a CPU these are three short numba loops. torch's embedding bag would sort its indices twice a
step and differentiate through slices that it first fills with zeros, which takes a tenth of a step
of 2048 rows. On other devices the embedding bag is used.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from inttower.core.batch import EMPTY, FloatArray, IntArray, RowArray
from inttower.core.kernels import kernel

NOWHERE = -1

Means = tuple[Tensor, Tensor, Tensor, Tensor]


@kernel
def number(rows: RowArray, place: IntArray, places: RowArray) -> IntArray:
    """Number the distinct rows of a batch in the order of their appearance.

    Args:
        rows: int32 [B, K]; EMPTY where there is none.
        place: scratch, int64 [rows of the table], all NOWHERE before and after.
        places: int32 [B, K], filled with the number of each row, EMPTY where there is none.

    Returns:
        The rows, each once, int64 [r].
    """
    found = np.empty(rows.size, np.int64)
    count = 0
    for i in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            row = rows[i, k]
            if row == EMPTY:
                places[i, k] = EMPTY
                continue
            if place[row] == NOWHERE:
                place[row] = count
                found[count] = row
                count += 1
            places[i, k] = place[row]
    for k in range(count):
        place[found[k]] = NOWHERE
    return found[:count].copy()


@kernel
def _means(
    leaf: FloatArray, places: RowArray, bounds: IntArray, out: FloatArray, first: FloatArray
) -> None:
    """Fill in the mean of each field's entries: out [B, m, D] and first [B, m]."""
    width = out.shape[2]
    for i in range(places.shape[0]):
        for f in range(out.shape[1]):
            mean = out[i, f]
            mean[:] = 0
            total = np.float32(0)
            count = 0
            for k in range(bounds[f], bounds[f + 1]):
                place = places[i, k]
                if place == EMPTY:
                    continue
                count += 1
                total += leaf[place, width]
                for d in range(width):
                    mean[d] += leaf[place, d]
            share = np.float32(1) / np.float32(max(count, 1))
            first[i, f] = total * share
            for d in range(width):
                mean[d] *= share


@kernel
def _spread(
    grad: FloatArray, places: RowArray, bounds: IntArray, out: FloatArray, first: FloatArray
) -> None:
    """Backward pass of :func:`_means`: add each row's gradient to grad [r, ≥ D + 1]."""
    width = out.shape[2]
    for i in range(places.shape[0]):
        for f in range(out.shape[1]):
            count = 0
            for k in range(bounds[f], bounds[f + 1]):
                count += places[i, k] != EMPTY
            share = np.float32(1) / np.float32(max(count, 1))
            for k in range(bounds[f], bounds[f + 1]):
                place = places[i, k]
                if place == EMPTY:
                    continue
                grad[place, width] += first[i, f] * share
                for d in range(width):
                    grad[place, d] += out[i, f, d] * share


class _FieldMeans(torch.autograd.Function):
    """:func:`field_means` on a CPU."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx,
        leaf: Tensor,
        places: RowArray,
        sides: tuple[IntArray, IntArray],
        width: int,
    ) -> tuple[Tensor, ...]:
        values = leaf.detach().numpy()
        means, firsts = [], []
        for bounds in sides:
            shape = (len(places), len(bounds) - 1)
            out, first = np.empty((*shape, width), np.float32), np.empty(shape, np.float32)
            _means(values, places, bounds, out, first)
            means.append(torch.from_numpy(out))
            firsts.append(torch.from_numpy(first))
        ctx.size, ctx.places, ctx.sides = leaf.shape, places, sides  # type: ignore[attr-defined]
        return (*means, *firsts)

    @staticmethod
    def backward(
        ctx: torch.autograd.function.FunctionCtx, *grads: Tensor
    ) -> tuple[Tensor, None, None, None]:
        grad = np.zeros(ctx.size, np.float32)  # type: ignore[attr-defined]
        given = [g.contiguous().numpy() for g in grads]
        for side, bounds in enumerate(ctx.sides):  # type: ignore[attr-defined]
            _spread(grad, ctx.places, bounds, given[side], given[side + 2])  # type: ignore[attr-defined]
        return torch.from_numpy(grad), None, None, None


def field_means(
    leaf: Tensor, places: RowArray, sides: tuple[IntArray, IntArray], width: int
) -> Means:
    """Each field's embedding, the mean over its entries; 0 where it has none.

    Args:
        leaf: float32 [r, ≥ D + 1], the rows of the batch, each once.
        places: int32 [B, K], which of them; EMPTY where there is none.
        sides: of the user's and of the item's m fields: int64 [m + 1], the column at which each
            begins, and the end of the last.
        width: D.

    Returns:
        Embeddings of the users' fields [B, m, D] and of the items'; their first-order weights
        [B, m] and the items'.
    """
    if leaf.device.type == "cpu":
        found = _FieldMeans.apply(leaf, places, sides, width)  # type: ignore[no-untyped-call]
        return cast(Means, found)
    return bag_means(leaf, places, sides, width)


def bag_means(
    leaf: Tensor, places: RowArray, sides: tuple[IntArray, IntArray], width: int
) -> Means:
    """:func:`field_means` by torch's embedding bag, on any device."""
    bounds = np.concatenate((sides[0][:-1], sides[1][:-1]))
    filled = places != EMPTY
    bags = np.add.reduceat(filled, bounds, axis=1, dtype=np.int64).ravel()  # [B·m]
    offsets = np.zeros(len(bags), np.int64)
    np.cumsum(bags[:-1], out=offsets[1:])
    scale = np.repeat(1 / np.maximum(bags, 1), bags).astype(np.float32)

    def there(array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(leaf.device)

    means = embedding_bag(
        there(places[filled].astype(np.int64)),
        leaf[:, : width + 1],
        there(offsets),
        mode="sum",
        per_sample_weights=there(scale),
    ).view(len(places), -1, width + 1)
    m = len(sides[0]) - 1
    return means[:, :m, :-1], means[:, m:, :-1], means[:, :m, -1], means[:, m:, -1]
