"""The multi-layer perceptron that most models use."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with a ReLU between them: [B, size] to [B, hidden[-1]].

    There is no ReLU after the last layer: the output may be a logit, or a factor of a dot product,
    which could otherwise never be negative.
    """

    def __init__(self, size: int, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((size, *hidden)))

    def forward(self, x: Tensor) -> Tensor:
        """The last layer's output [B, hidden[-1]]."""
        for layer in self.layers[:-1]:
            x = torch.relu_(layer(x))
        return self.layers[-1](x)  # type: ignore[no-any-return]  # torch types modules so
