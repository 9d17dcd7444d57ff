"""FE scores of tensors, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from inttower.publish.scorer import FloatArray, as_array, scores_cpu


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
    """As :func:`inttower.publish.scorer.scores_cpu`, where the items are."""
    columns = u.to(v.dtype).T.contiguous()  # [p, L·H]
    scores = torch.empty(len(v), dtype=torch.float32, device=v.device)
    # An accelerator has no 2 MB cache to stay in, and wants fewer, larger launches.
    items = max(1, rows * 256 // heads)
    for start in range(0, len(v), items):
        block = v[start : start + items]
        products = (block.reshape(-1, u.shape[1]) @ columns).view(len(block), heads, len(w))
        torch.mv(products.amax(1).float(), w, out=scores[start : start + items])
    return scores
