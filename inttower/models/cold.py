"""COLD: one network over all fields, each field weighted by how much it matters.

*COLD: Towards the Next Generation of Pre-Ranking System*, DLP-KDD 2020 (arXiv 2007.16122), section
3: the vectors e_j of all fields and cross features are weighted by a squeeze-and-excitation block,
joined, and read by an MLP. The paper then keeps the K fields with the largest weights, as many as
the servers can afford; here all stay, since the spec already chooses the fields.

The letters: M fields of D numbers, those of the crosses (the config's dots, x ∘ y) among them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inttower.core.fields import SPREAD, FieldVectors
from inttower.core.learner import Learner
from inttower.core.mlp import MLP
from inttower.core.network import Inputs, Network, Shape
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import Dot, Dots


@dataclass(frozen=True, slots=True)
class COLDConfig:
    """The shape of COLD."""

    width: int = 32  # D
    hidden: tuple[int, ...] = (300, 300, 128)  # as IntTower's towers
    dots: tuple[Dot, ...] = ()


class SE(nn.Module):
    """Which fields matter for this row: s = σ(W [e_1, …, e_M] + b), e_j becomes s_j e_j."""

    def __init__(self, M: int, D: int) -> None:
        super().__init__()
        self.excite = nn.Linear(M * D, M)

    def forward(self, E: Tensor) -> Tensor:
        """Reweighted fields [B, M, D]."""
        s = torch.sigmoid(self.excite(E.flatten(1)))  # [B, M]
        return E * s.unsqueeze(2)  # [B, M, D]


class COLDNetwork(Network):
    """The weights of COLD other than its table."""

    def __init__(self, shape: Shape, config: COLDConfig) -> None:
        super().__init__()
        D = config.width
        self.fields = FieldVectors(shape)
        self.dots = Dots(shape, config.dots)
        self.crosses = nn.ParameterList(torch.randn(len(w), D) * SPREAD for w in self.dots.weights)
        M = self.fields.count + len(config.dots)
        self.se = SE(M, D)
        self.mlp = MLP(M * D, (*config.hidden, 1))

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        crosses = [
            (xy @ C).unsqueeze(1)  # [B, 1, D]
            for xy, C in zip(self.dots.products(inputs), self.crosses, strict=True)
        ]
        E = self.se(torch.cat((self.fields(inputs), *crosses), 1))  # [B, M, D]
        logit: Tensor = self.mlp(E.flatten(1)).squeeze(1) + self.bias  # [B]
        return sum(self.dots(inputs), logit)


class COLD(Learner):
    """COLD, as a :class:`Learner`; it is not decoupled, so it cannot be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: its shape.
        training: how it learns. The default warms up at three times the usual rate; ten times the
            usual rate of the stream costs .004 AUC (MovieLens-1M).
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: COLDConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or COLDConfig()
        super().__init__(
            spec,
            config,
            lambda shape: COLDNetwork(shape, config),
            width=config.width,
            # dense numbers are read through small learnt vectors only: .8881 AUC, against .8866 at
            # 1e-3
            training=training or Training(lr=3e-3, lr_end=3e-4),
            seed=seed,
            device=device,
        )
