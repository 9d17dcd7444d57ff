"""IntTower in plain PyTorch, as a yardstick for training speed.

It has the form of the ``paper`` preset, built from what PyTorch's tutorials use: a DataLoader over
a TensorDataset, an ``nn.Embedding`` a field, one Adam over all weights, each formula as in the
paper. Only :mod:`bench.train` uses it.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from inttower.core.batch import Batch, FloatArray, Layout
from inttower.core.spec import Side

_WIDTH = 32
_HIDDEN = (300, 300, 128)
_HEADS, _HEAD_SIZE = 4, 64


class PlainTower(nn.Module):
    """One side: fields, Light-SE, hidden layers, and heads for the FE block.

    Args:
        layout: which columns of the rows belong to which field.
        side: which side.
        tables: the embeddings by field.
        outputs: how many of its layers have heads, counted from the last.
    """

    def __init__(self, layout: Layout, side: Side, tables: nn.ModuleDict, outputs: int) -> None:
        super().__init__()
        self.layout = layout
        self.fields = [f for f in layout.embedded if f.side == side]
        self.numbers = layout.dense_of(side)
        self.tables = tables
        m = len(self.fields)
        first = m * _WIDTH + self.numbers.stop - self.numbers.start
        self.excite = nn.Linear(m, m)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise((first, *_HIDDEN)))
        self.heads = nn.ModuleList(nn.Linear(n, _HEADS * _HEAD_SIZE) for n in _HIDDEN[-outputs:])

    def forward(self, ids: Tensor, dense: Tensor) -> list[Tensor]:
        """Heads [B, H, p] of each layer that has them."""
        embedded = []
        for field in self.fields:
            entries = ids[:, self.layout.row_slice(field.name)]  # [B, k], 0 behind the last
            vectors = self.tables[field.of or field.name](entries)  # [B, k, D]
            there = (entries > 0).unsqueeze(2)
            embedded.append((vectors * there).sum(1) / there.sum(1).clamp(min=1))
        fields = torch.stack(embedded, 1)  # [B, m, D]
        fields = fields * (1 + torch.softmax(self.excite(fields.mean(2)), 1).unsqueeze(2))
        x = torch.cat((fields.flatten(1), dense[:, self.numbers]), 1)
        outputs = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            outputs.append(x)
        last = outputs[-len(self.heads) :]
        return [
            head(h).view(-1, _HEADS, _HEAD_SIZE) for head, h in zip(self.heads, last, strict=True)
        ]


class PlainIntTower(nn.Module):
    """The paper's IntTower.

    Args:
        layout: which columns of the rows belong to which field.
        sizes: entries of each field's table, with the empty one (0), by the field's name.
    """

    def __init__(self, layout: Layout, sizes: dict[str, int]) -> None:
        super().__init__()
        tables = nn.ModuleDict(
            {name: nn.Embedding(size, _WIDTH, padding_idx=0) for name, size in sizes.items()}
        )
        self.user = PlainTower(layout, "user", tables, outputs=len(_HIDDEN))
        self.item = PlainTower(layout, "item", tables, outputs=1)
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, ids: Tensor, dense: Tensor) -> Tensor:
        """Logits [B] of ids [B, K] and numbers [B, n]."""
        logit: Tensor = self.bias
        (item,) = self.item(ids, dense)  # [B, H, p]
        for user in self.user(ids, dense):
            best = torch.einsum("bhp,bkp->bhk", user, item).max(2).values  # [B, H]
            logit = logit + best.sum(1) / (_HEADS * _HEAD_SIZE) ** 0.5
        return logit


def plain_loader(
    layout: Layout, batch: Batch, labels: FloatArray, batch_size: int
) -> tuple[PlainIntTower, DataLoader[tuple[Tensor, ...]]]:
    """A model and a loader of these rows, in shuffled batches.

    Args:
        layout: of the rows.
        batch: rows encoded by any model of the same layout.
        labels: float32 [B].
        batch_size: rows of a step.
    """
    ids = np.zeros(batch.rows.shape, np.int64)
    sizes = {}
    owners = [f for f in layout.embedded if f.kind != "sequence"]
    for owner in owners:
        sharing = [f.name for f in layout.embedded if owner.name in {f.name, f.of}]
        columns = np.r_[tuple(layout.row_slice(name) for name in sharing)]
        values, codes = np.unique(batch.rows[:, columns], return_inverse=True)
        shift = 0 if values[0] < 0 else 1  # the empty entry is 0
        ids[:, columns] = codes.reshape(len(ids), -1) + shift
        sizes[owner.name] = len(values) + shift
    scaled = batch.dense - np.nanmean(batch.dense, 0)
    scaled /= np.maximum(np.nanstd(batch.dense, 0), 1e-6)
    rows = TensorDataset(
        torch.from_numpy(ids),
        torch.from_numpy(np.nan_to_num(scaled).astype(np.float32)),
        torch.from_numpy(labels),
    )
    return PlainIntTower(layout, sizes), DataLoader(rows, batch_size=batch_size, shuffle=True)


def train_plain(model: PlainIntTower, loader: DataLoader[tuple[Tensor, ...]]) -> float:
    """Train one epoch; returns the mean loss."""
    adam = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.BCEWithLogitsLoss()
    total, steps = 0.0, 0
    for ids, dense, labels in loader:
        adam.zero_grad()
        loss = criterion(model(ids, dense), labels)
        loss.backward()
        adam.step()
        total, steps = total + loss.item(), steps + 1
    return total / steps
