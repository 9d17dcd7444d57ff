"""Inputs of the single-tower models: all fields of both sides at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inttower.core.network import Inputs, Shape

# like first embeddings in the table: a product of two must start near 0
SPREAD = 0.01


def flat(inputs: Inputs) -> Tensor:
    """Embeddings and dense numbers of both sides, [B, N]."""
    return torch.cat((inputs.user.flat(), inputs.item.flat()), 1)


def flat_size(shape: Shape) -> int:
    """N, the size of :func:`flat`."""
    return shape.user.flat + shape.item.flat


class FieldVectors(nn.Module):
    """Each of the M fields as a vector of D numbers, dense fields too.

    A dense number x becomes x·v with a learnt v, so that it takes part in products of fields.
    Otherwise the counters, which are the strongest features, would interact with nothing. A dense
    vector is one field: the sum over its numbers.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        layout = shape.layout
        self.dense = [layout.dense_slice(field.name) for field in layout.dense]
        self.V = nn.Parameter(torch.randn(layout.dense_columns, shape.user.width) * SPREAD)
        self.count = shape.user.fields + shape.item.fields + len(self.dense)  # M

    def forward(self, inputs: Inputs) -> Tensor:
        """All fields' vectors [B, M, D]."""
        x = torch.cat((inputs.user.dense, inputs.item.dense), 1)  # [B, n]
        dense = [(x[:, s] @ self.V[s]).unsqueeze(1) for s in self.dense]  # [B, 1, D] each
        return torch.cat((inputs.user.fields, inputs.item.fields, *dense), 1)


class FirstOrder(nn.Module):
    """A weight for each id and each dense number, of both sides."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(shape.layout.dense_columns))

    def forward(self, inputs: Inputs) -> Tensor:
        """Their sum, [B]."""
        x = torch.cat((inputs.user.dense, inputs.item.dense), 1)  # [B, n]
        return inputs.user.first.sum(1) + inputs.item.first.sum(1) + x @ self.w
