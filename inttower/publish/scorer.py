"""FE scores of one user against many items, and the best k of them.

The block of fine-grained and early interaction (FE block; IntTower, CIKM 2022) gives every user
layer i = 1..L and the last item layer H heads of p numbers. The score of an item is

    s = Σ_i w_i Σ_a max_b ⟨u^{i,a}, v^b⟩        (a, b = 1..H)

The naive code repeats the user for each item. Here all user heads are one matrix [p, L·H], the
items' heads another [N·H, p], and their product is one GEMM. Its [N, H, L·H] result is reduced
right away: the maximum over the item heads (adjacent rows), then a weighted sum over the L·H user
heads. The weights are applied *after* the maximum, so they may be negative. The GEMM's result has
L·H numbers a row, more than the items themselves when H is large, so N is processed in blocks that
stay in the cache.

On a CPU the GEMM is numpy's (OpenBLAS), since it is thin: 12 columns for 3 layers of 4 heads, where
torch's (MKL) measured two to three times slower on an AMD EPYC. The reduction is in numba. Plain
numba loops without a GEMM are faster with one head; with 4 heads of 64 numbers they are as fast
where OpenBLAS can use AVX2 only; at 4 heads of 16, the default, and at 8 heads and more they take
twice as long. On an accelerator everything is torch's. `headrace bench score` compares this with
other ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, overload

import numpy as np
import numpy.typing as npt

from inttower.core.kernels import relaxed_kernel
from inttower.errors import SpecError

if TYPE_CHECKING:
    # a server scores arrays only; importing PyTorch would cost it 2 seconds and 400 MB
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]

# Rows of the GEMM (item heads) in a block. At p = 64 they are 256 kB, plus 48 kB of products at
# L·H = 12: a 1 MB second-level cache holds them. With four times as many rows OpenBLAS switches to
# its large kernel, which takes half as long again for 12 columns.
BLOCK_ROWS = 1024


@relaxed_kernel
def _reduce(
    products: FloatArray, weights: FloatArray, best: FloatArray, scores: FloatArray, heads: int
) -> None:
    """Maximum of each ``heads`` rows of products [n·H, L·H], and its weighted sum, into scores."""
    width = products.shape[1]
    for item in range(scores.shape[0]):
        row = item * heads
        for j in range(width):
            best[j] = products[row, j]
        for b in range(1, heads):
            for j in range(width):
                x = products[row + b, j]
                best[j] = x if x > best[j] else best[j]
        total = np.float32(0)
        for j in range(width):
            total += weights[j] * best[j]
        scores[item] = total


@relaxed_kernel
def _reduce_four(products: FloatArray, weights: FloatArray, scores: FloatArray) -> None:
    """:func:`_reduce` for the usual 4 heads, in registers: a sixth of the time."""
    for item in range(scores.shape[0]):
        row = 4 * item
        a, b, c, d = products[row], products[row + 1], products[row + 2], products[row + 3]
        total = np.float32(0)
        for j in range(products.shape[1]):
            left = a[j] if a[j] > b[j] else b[j]
            right = c[j] if c[j] > d[j] else d[j]
            total += weights[j] * (left if left > right else right)
        scores[item] = total


def scores_cpu(
    u: FloatArray, v: FloatArray | Tensor, w: FloatArray, heads: int, rows: int
) -> FloatArray:
    """Scores [N] of items [N, H·p] for user heads [L·H, p] of weights [L·H], ``rows`` at a time."""
    columns = np.ascontiguousarray(u.T)  # [p, L·H]
    scores = np.empty(len(v), np.float32)
    best = np.empty(len(w), np.float32)
    items = max(1, rows // heads)
    products = np.empty((min(items, len(v)) * heads, len(w)), np.float32)
    for start in range(0, len(v), items):
        some = v[start : start + items]
        # A half-precision item matrix is widened block by block, in cache: it halves the memory
        # read, and measured faster than a CPU's bf16 GEMM, which also rounds each product.
        whole = some if isinstance(some, np.ndarray) else some.float().numpy()
        block = whole.reshape(-1, u.shape[1])  # [n·H, p]
        result = products[: len(block)]
        np.matmul(block, columns, out=result)
        into = scores[start : start + items]
        if heads == 4:
            _reduce_four(result, w, into)
        else:
            _reduce(result, w, best, into, heads)
    return scores


@overload
def fe_scores(
    user_heads: FloatArray,
    item_heads: FloatArray,
    layer_weights: FloatArray | None = None,
    *,
    block_rows: int = BLOCK_ROWS,
) -> FloatArray: ...
@overload
def fe_scores(
    user_heads: Tensor,
    item_heads: Tensor,
    layer_weights: Tensor | None = None,
    *,
    block_rows: int = BLOCK_ROWS,
) -> Tensor: ...
def fe_scores(
    user_heads: FloatArray | Tensor,
    item_heads: FloatArray | Tensor,
    layer_weights: FloatArray | Tensor | None = None,
    *,
    block_rows: int = BLOCK_ROWS,
) -> FloatArray | Tensor:
    """Scores of N items for one user.

    An item's score depends on the other items by rounding (a GEMM uses other instructions at the
    edge of a block): compare with a tolerance. Numbers must be finite.

    Args:
        user_heads: [L, H, p], or [L·H, p] when ``layer_weights`` tells L or L is 1.
        item_heads: [N, H·p], head after head; rows may be strided (columns of a wider matrix).
            float32, or bfloat16/float16 as a tensor. On a GPU the work is done there, in the
            precision of this matrix; on a CPU always in float32.
        layer_weights: [L], any sign, with every scale folded in (such as 1/√(p·H)); none: ones.
        block_rows: item heads multiplied at a time.

    Returns:
        float32 [N], a tensor for tensors (on the items' device), an array for arrays.

    Raises:
        SpecError: shapes that do not fit.

    >>> user = np.array([[[1.0, 0.0], [0.0, 1.0]]], np.float32)      # one layer, two heads of 2
    >>> items = np.array([[3, 1, 2, 5], [-1, -1, -2, -2]], np.float32)
    >>> fe_scores(user, items)                              # max(3, 2) + max(1, 5); -1 + -1
    array([ 8., -2.], dtype=float32)
    >>> fe_scores(user, items, np.array([-0.5], np.float32))
    array([-4.,  1.], dtype=float32)
    """
    layers, heads, size = _shape(user_heads, item_heads, layer_weights)
    if not isinstance(item_heads, np.ndarray):
        return score_tensors(user_heads, item_heads, layer_weights, (layers, heads), block_rows)
    u = as_array(user_heads).reshape(layers * heads, size)
    per_layer = np.ones(layers, np.float32) if layer_weights is None else as_array(layer_weights)
    return scores_cpu(u, item_heads, np.repeat(per_layer, heads), heads, block_rows)


def as_array(values: FloatArray | Tensor) -> FloatArray:
    """The same numbers as a float32 array on the CPU."""
    if isinstance(values, np.ndarray):
        return np.asarray(values, np.float32)
    return cast(FloatArray, values.detach().float().numpy(force=True))


def _shape(
    user: FloatArray | Tensor, items: FloatArray | Tensor, weights: FloatArray | Tensor | None
) -> tuple[int, int, int]:
    """Layers, heads and head size; checks the shapes."""
    layers = user.shape[0] if user.ndim == 3 else 1 if weights is None else len(weights)
    rows, size = int(np.prod(user.shape[:-1])), user.shape[-1]
    if user.ndim not in {2, 3} or not rows or not size or rows % layers:
        raise SpecError(
            f"user heads of shape {tuple(user.shape)}: give [L, H, p], or [L·H, p] with L weights"
        )
    heads = rows // layers
    if items.ndim != 2 or items.shape[1] != heads * size:
        raise SpecError(
            f"item heads of shape {tuple(items.shape)}: [N, {heads * size}] is needed for"
            f" {heads} heads of {size} numbers, as the user has them"
        )
    if weights is not None and tuple(weights.shape) != (layers,):
        raise SpecError(f"layer weights of shape {tuple(weights.shape)}: [{layers}] is needed")
    return layers, heads, size


def top_k(scores: FloatArray | Tensor, k: int) -> tuple[IntArray, FloatArray]:
    """The k largest scores, largest first; of equal scores the lower index comes first.

    Args:
        scores: [N]; no NaN.
        k: how many; all of them when k is larger than N.

    Returns:
        Indices int64 [min(k, N)] and their scores float32.

    Raises:
        SpecError: k is negative, or a score is NaN.

    >>> top_k(np.array([1.0, 3.0, 2.0, 3.0, 2.0], np.float32), 3)
    (array([1, 3, 2]), array([3., 3., 2.], dtype=float32))
    """
    values = as_array(scores)
    if k < 0:
        raise SpecError(f"k must be 0 or more, it is {k}")
    if np.isnan(values).any():
        raise SpecError("a score is NaN, so there is no order: check the vectors with isfinite")
    chosen = np.arange(len(values), dtype=np.int64)
    if 0 < k < len(values):
        # which of the scores equal to the k-th are kept must not depend on the partition
        least = np.partition(values, len(values) - k)[len(values) - k]
        above = np.flatnonzero(values > least)
        chosen = np.concatenate([above, np.flatnonzero(values == least)[: k - len(above)]])
    elif k == 0:
        chosen = chosen[:0]
    order = np.argsort(-values[chosen], kind="stable")
    # `above` and the ties are each in index order and the ties are the smallest: stable is enough.
    chosen = chosen[order]
    return chosen, values[chosen]


def score_tensors(
    user_heads: FloatArray | Tensor,
    item_heads: Tensor,
    layer_weights: FloatArray | Tensor | None,
    shape: tuple[int, int],
    block_rows: int,
) -> Tensor:
    """Scores float32 [N], on the items' device.

    Args:
        user_heads: [L, H, p] or [L·H, p].
        item_heads: [N, H·p].
        layer_weights: [L]; none: ones.
        shape: L and H.
        block_rows: item heads multiplied at a time.
    """
    import torch

    layers, heads = shape
    size = user_heads.shape[-1]
    device = item_heads.device
    if device.type != "cpu":
        tu = torch.as_tensor(user_heads, device=device).reshape(layers * heads, size)
        tw = torch.ones(layers) if layer_weights is None else torch.as_tensor(layer_weights)
        tw = tw.to(device, torch.float32).repeat_interleave(heads)
        with torch.inference_mode():
            return scores_device(tu, item_heads, tw, heads, block_rows)
    u = as_array(user_heads).reshape(layers * heads, size)
    weights = torch.ones(layers) if layer_weights is None else layer_weights
    items = item_heads.detach()
    plain = items.numpy() if items.dtype == torch.float32 else items
    w = as_array(weights).repeat(heads)
    return torch.from_numpy(scores_cpu(u, plain, w, heads, block_rows))


def scores_device(u: Tensor, v: Tensor, w: Tensor, heads: int, rows: int) -> Tensor:
    """As :func:`scores_cpu`, where the items are."""
    import torch

    columns = u.to(v.dtype).T.contiguous()  # [p, L·H]
    scores = torch.empty(len(v), dtype=torch.float32, device=v.device)
    # an accelerator has no 2 MB cache to stay in, and prefers fewer, larger launches
    items = max(1, rows * 256 // heads)
    for start in range(0, len(v), items):
        block = v[start : start + items]
        products = (block.reshape(-1, u.shape[1]) @ columns).view(len(block), heads, len(w))
        torch.mv(products.amax(1).float(), w, out=scores[start : start + items])
    return scores
