"""Inputs and base class of a network: the part of a model that its own file writes."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from inttower.core.batch import Layout
from inttower.core.spec import Side
from inttower.errors import SpecError


@dataclass(frozen=True, slots=True)
class SideShape:
    """Sizes of one side's inputs: m embedded fields of D numbers, n dense numbers."""

    fields: int
    width: int
    dense: int

    @property
    def flat(self) -> int:
        """m·D + n, the size of :meth:`SideInputs.flat`."""
        return self.fields * self.width + self.dense


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a network's :class:`Inputs`.

    Attributes:
        user: the user side.
        item: the item side.
        layout: the columns of each field, by name.
    """

    user: SideShape
    item: SideShape
    layout: Layout

    def dense_slice(self, name: str) -> tuple[Side, slice]:
        """Side of a dense field, and its columns in ``dense`` and ``raw`` of that side."""
        columns = self.layout.dense_slice(name)
        side = self.layout.spec.field(name).side
        start = self.layout.dense_of(side).start
        return side, slice(columns.start - start, columns.stop - start)


@dataclass(frozen=True, slots=True)
class SideInputs:
    """One side of B rows.

    Attributes:
        fields: float32 [B, m, D], an embedding a field; a list field's is the mean of its
            entries' (0 when it is empty).
        first: float32 [B, m], first-order weights of the same.
        dense: float32 [B, n], scaled and clipped; 0 where a number was missing.
        raw: float32 [B, n], the same as given; 0 where missing.
        ids: int64 [B], table row of the side's own id.
        extra: float32 [B, E], further learnt numbers of that id, for models that ask for them.
    """

    fields: Tensor
    first: Tensor
    dense: Tensor
    raw: Tensor
    ids: Tensor
    extra: Tensor

    def flat(self) -> Tensor:
        """Embeddings and dense numbers side by side, [B, m·D + n]."""
        return torch.cat((self.fields.flatten(1), self.dense), 1)


@dataclass(frozen=True, slots=True)
class Inputs:
    """B rows as a network reads them.

    Attributes:
        user: the user side.
        item: the item side.
        item_share: float32 [B], part of all learnt rows that were of this item.
        offset: float32 [B], logits that the network's are added to when it learns: of the
            score that it is a residual on; 0 for a network that is the whole score.
    """

    user: SideInputs
    item: SideInputs
    item_share: Tensor
    offset: Tensor


class Network(nn.Module):
    """The weights of a model without its embedding table. ``bias`` starts at the base rate."""

    bias: nn.Parameter

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    @abstractmethod
    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""

    def loss(self, inputs: Inputs, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The loss that a step minimises, and the logits [B].

        Here the weighted log loss, mean over the batch.
        """
        logits: Tensor = self(inputs)
        return log_loss(logits + inputs.offset, labels, weights), logits

    def start_as_nothing(self) -> None:
        """Change the first weights so that every logit is 0, and learning still leaves it.

        Raises:
            SpecError: this network has no such start.
        """
        raise SpecError(
            f"a {type(self).__name__} has no start at 0, so it cannot be a residual: take IntTower,"
            " a two-tower model, or none"
        )


def log_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over B of weight · −log p(label); logits, labels, weights [B]."""
    return binary_cross_entropy_with_logits(logits, labels, weights)


def flatten(network: Network) -> nn.Parameter:
    """Make all weights and gradients views of one vector; each starts on a cache line.

    With another alignment the linear algebra may choose other instructions, whose results differ in
    the last bits.
    """
    parameters = list(network.parameters())
    ends = np.cumsum([-(-p.numel() // 16) * 16 for p in parameters])
    vector = parameters[0].new_zeros(int(ends[-1]))
    grads = torch.zeros_like(vector)
    for parameter, end in zip(parameters, ends.tolist(), strict=True):
        start = end - -(-parameter.numel() // 16) * 16
        part = slice(start, start + parameter.numel())
        vector[part] = parameter.detach().flatten()
        parameter.data = vector[part].view_as(parameter)
        parameter.grad = grads[part].view_as(parameter)
    flat = nn.Parameter(vector)
    flat.grad = grads
    return flat
