"""The two-tower model: a user vector, an item vector, and one product of the two.

*Learning Deep Structured Semantic Models for Web Search using Clickthrough Data* (DSSM), CIKM 2013,
section 3, as pre-rankers use it: each side's MLP reads that side's fields, and the logit is

    γ·cos(u, v) + bias    or    ⟨u, v⟩ + bias

γ is learnt. Implementations that take the sigmoid of the bare cosine fix it at 1. Then every
probability is between .27 and .73, and the model looks worse than it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from inttower.core.learner import Learner
from inttower.core.mlp import MLP
from inttower.core.network import Inputs, Network, Shape
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import Dot, Dots
from inttower.publish.encoders import TwoTowerEncoder
from inttower.publish.published import ServingEncoder


@dataclass(frozen=True, slots=True)
class TwoTowerConfig:
    """The shape of the two-tower model."""

    width: int = 32  # D
    hidden: tuple[int, ...] = (300, 300, 128)  # as IntTower's towers; the last is u's and v's size
    similarity: Literal["cosine", "dot"] = "cosine"
    scale: float = 5.0  # γ at first; from 1 the warm-up is too short to find it (-.025 AUC)
    dots: tuple[Dot, ...] = ()


class TwoTowerNetwork(Network):
    """The weights of the two-tower model other than its table."""

    def __init__(self, shape: Shape, config: TwoTowerConfig) -> None:
        super().__init__()
        self.user = MLP(shape.user.flat, config.hidden)
        self.item = MLP(shape.item.flat, config.hidden)
        self.cosine = config.similarity == "cosine"
        if self.cosine:
            self.scale = nn.Parameter(torch.tensor(config.scale, dtype=torch.float32))  # γ
        self.dots = Dots(shape, config.dots)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        u = self.user(inputs.user.flat())  # [B, 128]
        v = self.item(inputs.item.flat())  # [B, 128]
        if self.cosine:
            u, v = self.scale * normalize(u, dim=1), normalize(v, dim=1)
        logit: Tensor = (u * v).sum(1) + self.bias  # [B]
        return sum(self.dots(inputs), logit)

    def start_as_nothing(self) -> None:
        """The user's vector at 0, or the scale of the cosine."""
        with torch.no_grad():
            still = [self.scale] if self.cosine else list(self.user.layers[-1].parameters())
            for weights in (*still, *self.dots.weights, self.bias):
                weights.zero_()


class TwoTower(Learner):
    """The two-tower model, as a :class:`Learner`; it can be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: its shape.
        training: how it learns. The default rates: three times the warm-up's costs .007 AUC, ten
            times the stream's .025 (MovieLens-1M).
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: TwoTowerConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or TwoTowerConfig()
        super().__init__(
            spec,
            config,
            lambda shape: TwoTowerNetwork(shape, config),
            width=config.width,
            training=training or Training(),
            seed=seed,
            device=device,
        )

    def serving_encoder(self) -> ServingEncoder:
        """Encoders with a copy of the current weights; later steps do not change them."""
        return TwoTowerEncoder(**self.published())
