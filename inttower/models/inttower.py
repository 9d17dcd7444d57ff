"""IntTower: two towers that meet in multi-head MaxSim scores.

*IntTower: the Next Generation of Two-Tower Model for Pre-Ranking System*, CIKM 2022
(arXiv 2210.09890). In the order of this file: Light-SE (section 3.2), the towers, the FE block
(3.3), CIR (3.4). "IntTower+" adds three terms that keep user and item apart: bias heads, an FM
skip, dots.

The letters: B rows, m fields of D numbers and n dense numbers a side, L user layers, H heads of p
numbers, r the rank of the FM skip. The score of a user and an item is

    bias + b_u + b_i + ⟨A x_u, B x_i⟩ + Σ dots + Σ_i w_i/√(pH) Σ_a max_b ⟨u^{i,a}, v^b⟩

The item's part fits in one flat row [H·p | b_i | B x_i | dots], which is published:
:mod:`inttower.publish.encoders` makes such rows, :mod:`inttower.publish.published` scores them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from inttower.core.learner import Learner
from inttower.core.network import Inputs, Network, Shape, SideInputs, SideShape, log_loss
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.errors import SpecError
from inttower.models.dots import Dot, Dots, state_dots
from inttower.publish.encoders import IntTowerEncoder
from inttower.publish.published import ServingEncoder

if TYPE_CHECKING:
    from inttower.state.user_state import UserState


@dataclass(frozen=True, slots=True)
class IntTowerConfig:
    """The shape of IntTower. Start from a preset: ``plus``, ``paper`` or ``last_layer``."""

    width: int = 32  # D
    hidden: tuple[int, ...] = (300, 300, 128)  # the paper's towers
    heads: int = 4  # 2 to 5 differ by .001 AUC; the reference code's 32 cost 192 kMACs a candidate
    head_size: int = 16  # p: 64 is no better, and takes 4 times the memory an item
    layers: int = 0  # user layers in the FE block, counted from the last; 0: all
    first_order: bool = True  # b_u and b_i, with a weight for each id
    # r; 0: no FM skip. With bias heads +.015 AUC on MovieLens-1M; 32 is .001 better than 16 and as
    # good as 64
    fm_rank: int = 32
    dots: tuple[Dot, ...] = ()
    cir: float = 0.0  # weight of CIR: .1 helps retrieval and costs .005 of pointwise AUC
    temperature: float = 0.1  # of CIR

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.head_size, *self.hidden, len(self.hidden)) < 1:
            raise SpecError("width, heads, head_size and hidden layers of IntTower: 1 or more each")
        if not 0 <= self.layers <= len(self.hidden):
            raise SpecError(
                f"layers {self.layers} of IntTower: between 0 (all) and its"
                f" {len(self.hidden)} hidden ones"
            )

    @classmethod
    def plus(cls, dots: tuple[Dot, ...] = ()) -> IntTowerConfig:
        """IntTower+, the default."""
        return cls(dots=dots)

    @classmethod
    def paper(cls) -> IntTowerConfig:
        """The paper's form, with the heads of the authors' MindSpore version."""
        return cls(heads=4, head_size=64, first_order=False, fm_rank=0)

    @classmethod
    def last_layer(cls) -> IntTowerConfig:
        """Only the last user layer is in the FE block: a third of the work a candidate.

        It must be trained this way: leaving layers out afterwards changes scale and bias.
        """
        return cls(layers=1)

    @property
    def used_layers(self) -> int:
        """L, the number of user layers in the FE block."""
        return self.layers or len(self.hidden)


# ---------------------------------------------------------------------- Light-SE (section 3.2)


class LightSE(nn.Module):
    """Reweights the fields of a tower for each row: E ∘ (1 + softmax(W·mean(E)))."""

    def __init__(self, m: int) -> None:
        super().__init__()
        self.excite = nn.Linear(m, m)

    def forward(self, E: Tensor) -> Tensor:
        """Reweighted fields [B, m, D]."""
        z = E.mean(2)  # [B, m]: squeezed over D
        k = torch.softmax(self.excite(z), 1)  # [B, m]
        return E * (1 + k).unsqueeze(2)  # [B, m, D]


# ---------------------------------------------------------------------- the towers


class Tower(nn.Module):
    """One side: Light-SE, then hidden layers; the FE block reads the output of each."""

    def __init__(self, shape: SideShape, hidden: tuple[int, ...]) -> None:
        super().__init__()
        self.light_se = LightSE(shape.fields)
        sizes = (shape.flat, *hidden)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, side: SideInputs) -> list[Tensor]:
        """The output of each layer, [B, hidden] each."""
        E = self.light_se(side.fields)  # [B, m, D]
        x = torch.cat((E.flatten(1), side.dense), 1)  # [B, m·D + n]
        outputs = []
        for layer in self.layers:
            x = torch.relu_(layer(x))
            outputs.append(x)  # [B, 300], [B, 300], [B, 128]
        return outputs


# ---------------------------------------------------------------------- FE block and CIR


class IntTowerNetwork(Network):
    """The weights of IntTower without its embedding table."""

    def __init__(self, shape: Shape, config: IntTowerConfig) -> None:
        super().__init__()
        self.config = config
        H, p, L = config.heads, config.head_size, config.used_layers
        self.user = Tower(shape.user, config.hidden)
        self.item = Tower(shape.item, config.hidden)
        # FE block: H heads of every user layer that is used, and of the last item layer
        self.user_heads = nn.ModuleList(nn.Linear(n, H * p) for n in config.hidden[-L:])
        self.item_heads = nn.Linear(config.hidden[-1], H * p)
        self.layer_weight = nn.Parameter(torch.ones(L))
        # IntTower+: bias heads, FM skip, dots
        if config.first_order:
            self.user_first = nn.Parameter(torch.zeros(shape.user.dense))
            self.item_first = nn.Parameter(torch.zeros(shape.item.dense))
        if config.fm_rank:
            self.A = nn.Linear(shape.user.flat, config.fm_rank, bias=False)
            self.B = nn.Linear(shape.item.flat, config.fm_rank, bias=False)
        self.dots = Dots(shape, config.dots)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        U, V = self.heads(inputs)
        return self.score(inputs, U, V)

    def heads(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """FE block, first half: user heads u [B, L, H, p] and item heads v [B, H, p]."""
        H, p = self.config.heads, self.config.head_size
        outputs = self.user(inputs.user)[-self.config.used_layers :]
        U = torch.stack(
            [head(h) for head, h in zip(self.user_heads, outputs, strict=True)], 1
        ).float()  # [B, L, H·p]
        V = self.item_heads(self.item(inputs.item)[-1]).float()  # [B, H·p]
        return U.view(*U.shape[:2], H, p), V.view(-1, H, p)

    def score(self, inputs: Inputs, U: Tensor, V: Tensor) -> Tensor:
        """Logits [B] from the heads and the terms of IntTower+; always float32, never bfloat16."""
        with torch.autocast(U.device.type, enabled=False):
            return self._score(inputs, U, V)

    def _score(self, inputs: Inputs, U: Tensor, V: Tensor) -> Tensor:
        H, p = self.config.heads, self.config.head_size
        # FE block, second half: Σ_i w_i Σ_a max_b ⟨u^{i,a}, v^b⟩ (MaxSim)
        S = U.flatten(1, 2) @ V.transpose(1, 2)  # [B, L·H, H]
        best = S.amax(2).view(len(S), -1, H).sum(2)  # [B, L]
        # without 1/√(pH) the sum grows with H and √p, and training with many heads diverges
        logit: Tensor = best @ self.layer_weight / sqrt(p * H) + self.bias  # [B]
        # the terms of IntTower+
        if self.config.first_order:
            logit = logit + inputs.user.first.sum(1) + inputs.item.first.sum(1)
            logit = logit + inputs.user.dense @ self.user_first
            logit = logit + inputs.item.dense @ self.item_first
        if self.config.fm_rank:
            a, b = self.A(inputs.user.flat()), self.B(inputs.item.flat())  # [B, r] each
            logit = logit + (a * b).sum(1)
        return sum(self.dots(inputs), logit)

    def loss(self, inputs: Inputs, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The log loss, plus CIR if the config asks for it; and the logits [B]."""
        U, V = self.heads(inputs)
        logits = self.score(inputs, U, V)
        loss = log_loss(logits + inputs.offset, labels, weights)
        if self.config.cir:
            loss = loss + self.config.cir * self.contrast(inputs, U[:, -1], V, labels)
        return loss, logits

    def start_as_nothing(self) -> None:
        """The user's side at 0: the item's keeps its random start, which the user's learns from."""
        with torch.no_grad():
            for head in self.user_heads:
                for weights in head.parameters():
                    weights.zero_()
            if self.config.fm_rank:
                self.A.weight.zero_()
            for dot in self.dots.weights:
                dot.zero_()
            self.bias.zero_()

    def contrast(self, inputs: Inputs, u: Tensor, v: Tensor, labels: Tensor) -> Tensor:
        """CIR (section 3.4): InfoNCE of each clicked pair against the other items of the batch.

        Args:
            inputs: for ids and item frequencies.
            u: the last user layer's heads [B, H, p].
            v: the item's heads [B, H, p].
            labels: 0/1 [B].

        Returns:
            The mean over the P clicked rows; 0 if none is clicked.
        """
        clicked = labels > 0.5
        if not bool(clicked.any()):
            return labels.new_zeros(())
        users, items = inputs.user.ids, inputs.item.ids
        u, v = normalize(u.flatten(1), dim=1), normalize(v.flatten(1), dim=1)  # [B, H·p]
        similar = u[clicked] @ v.T / self.config.temperature  # [P, B]
        # logQ correction: a popular item is a negative more often than others
        similar = similar - inputs.item_share.log()
        same_item = items[clicked].unsqueeze(1) == items  # [P, B]
        # other items that the user of row i clicked in this batch are no negatives
        same_user = users[clicked].unsqueeze(1) == users[clicked]  # [P, P]
        clicked_item = items[clicked].unsqueeze(1) == items  # [P, B]
        other_positive = (same_user.float() @ clicked_item.float()) > 0  # [P, B]
        own = torch.nn.functional.one_hot(clicked.nonzero().squeeze(1), len(labels)).bool()  # [P,B]
        similar = similar.masked_fill((same_item | other_positive) & ~own, -torch.inf)
        return cross_entropy(similar, clicked.nonzero().squeeze(1))


class IntTower(Learner):
    """IntTower, as a :class:`Learner`; it can be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: a preset of :class:`IntTowerConfig`.
        training: how it learns.
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: IntTowerConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or IntTowerConfig.plus()
        super().__init__(
            spec,
            config,
            lambda shape: IntTowerNetwork(shape, config),
            width=config.width,
            training=training or Training(),
            seed=seed,
            device=device,
        )

    @classmethod
    def with_state(
        cls,
        spec: FeatureSpec,
        state: UserState,
        config: IntTowerConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> IntTower:
        """The preset ``state``: an IntTower that reads a user state, as inputs and in dots.

        It does not read the user's own row (:meth:`Training.beside_user_state`). The caller feeds
        model and state; :mod:`inttower.state.user_state` says in which order.

        Args:
            spec: without the fields of the state; they are added.
            state: only its shape is read.
            config: without the dots of the state; default :meth:`IntTowerConfig.plus`.
            training: how it would learn without a state.
            seed: of its first weights.
            device: that holds the weights, such as ``cuda``.
        """
        fields = FeatureSpec((*spec.fields, *state.fields))
        config = config or IntTowerConfig.plus()
        return cls(
            fields,
            replace(config, dots=(*config.dots, *state_dots(fields))),
            training=(training or Training()).beside_user_state(),
            seed=seed,
            device=device,
        )

    def serving_encoder(self) -> ServingEncoder:
        """Encoders with a copy of the current weights; later steps do not change them."""
        return IntTowerEncoder(**self.published())
