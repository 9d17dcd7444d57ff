"""DAT: two towers; each also reads a learnt vector that imitates the other tower's output.

*A Dual Augmented Two-tower Model for Online Large-scale Recommendation*, DLP-KDD 2021, sections 3.2
to 3.4. Each user and each item has an augmented vector a, as large as a tower's output. It is a
further input of its tower. For each positive row (label y) the adaptive-mimic mechanism (3.3) pulls
it towards the other tower's output p, through which no gradient flows:

    y·|a_u − p_v|² + y·|a_v − p_u|²

The category alignment loss (3.4) is left out: it balances categories of very unequal size in
retrieval, and not every log here has categories. The logit is γ·⟨p_u, p_v⟩ + bias with p_u and p_v
of length 1, γ learnt as in :mod:`inttower.models.two_tower`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from inttower.core.learner import Learner
from inttower.core.mlp import MLP
from inttower.core.network import Inputs, Network, Shape, SideInputs, log_loss
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import Dot, Dots
from inttower.publish.encoders import DATEncoder
from inttower.publish.published import ServingEncoder


@dataclass(frozen=True, slots=True)
class DATConfig:
    """The shape of DAT."""

    width: int = 32  # D
    hidden: tuple[int, ...] = (300, 300, 128)  # as IntTower's towers; the last is a's and p's size
    mimic: float = 0.5  # weight of the mimic loss
    scale: float = 5.0  # γ at first, as the two-tower model's
    dots: tuple[Dot, ...] = ()

    @property
    def augmented(self) -> int:
        """Numbers in an augmented vector."""
        return self.hidden[-1]


class DATNetwork(Network):
    """The weights of DAT without its embedding table, which holds the augmented vectors."""

    def __init__(self, shape: Shape, config: DATConfig) -> None:
        super().__init__()
        self.config = config
        self.user = MLP(shape.user.flat + config.augmented, config.hidden)
        self.item = MLP(shape.item.flat + config.augmented, config.hidden)
        self.scale = nn.Parameter(torch.tensor(config.scale, dtype=torch.float32))  # γ
        self.dots = Dots(shape, config.dots)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        p_u, p_v = self.towers(inputs)
        return self.score(inputs, p_u, p_v)

    def towers(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """The towers' outputs p_u and p_v, [B, 128] each, of length 1."""
        p_u, p_v = self.user(_augmented(inputs.user)), self.item(_augmented(inputs.item))
        return normalize(p_u, dim=1), normalize(p_v, dim=1)

    def score(self, inputs: Inputs, p_u: Tensor, p_v: Tensor) -> Tensor:
        """Logits [B]."""
        logit: Tensor = self.scale * (p_u * p_v).sum(1) + self.bias  # [B]
        return sum(self.dots(inputs), logit)

    def loss(self, inputs: Inputs, labels: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """The log loss and the mimic loss; logits [B]."""
        p_u, p_v = self.towers(inputs)
        logits = self.score(inputs, p_u, p_v)
        a_u, a_v = inputs.user.extra, inputs.item.extra  # [B, 128] each
        # here the vectors learn from the towers, not the towers from the vectors
        far = (a_u - p_v.detach()).square().sum(1) + (a_v - p_u.detach()).square().sum(1)  # [B]
        mimic = self.config.mimic * (weights * labels * far).mean()
        return log_loss(logits + inputs.offset, labels, weights) + mimic, logits


class DAT(Learner):
    """DAT, as a :class:`Learner`; it can be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: its shape.
        training: how it learns. The default rates: three times the warm-up's costs .009 AUC, ten
            times the stream's .023 (MovieLens-1M).
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: DATConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or DATConfig()
        super().__init__(
            spec,
            config,
            lambda shape: DATNetwork(shape, config),
            width=config.width,
            extra=config.augmented,
            training=training or Training(),
            seed=seed,
            device=device,
        )

    def serving_encoder(self) -> ServingEncoder:
        """Encoders with a copy of the current weights; later steps do not change them."""
        return DATEncoder(**self.published())


def _augmented(side: SideInputs) -> Tensor:
    """A tower's inputs [B, m·D + n + 128]."""
    return torch.cat((side.flat(), side.extra), 1)
