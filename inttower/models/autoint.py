"""AutoInt: fields attend to fields.

*AutoInt: Automatic Feature Interaction Learning via Self-Attentive Neural Networks*, CIKM 2019
(arXiv 1810.11921), section 4: every field of both sides, dense ones too, is a vector; interacting
layers of multi-head self-attention mix them; a linear layer turns the last one's output into the
logit. With hidden layers it is the paper's AutoInt+ (section 5.5): a deep network is added to the
attention.

The letters: M fields, D numbers each, H heads of d numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inttower.core.fields import FieldVectors, flat, flat_size
from inttower.core.learner import Learner
from inttower.core.mlp import MLP
from inttower.core.network import Inputs, Network, Shape
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import Dot, Dots


@dataclass(frozen=True, slots=True)
class AutoIntConfig:
    """The shape of AutoInt."""

    width: int = 32  # D
    layers: int = 3  # the paper's
    heads: int = 2  # H, the paper's
    head_size: int = 32  # d, the paper's
    hidden: tuple[int, ...] = (300, 300, 128)  # of the deep part, as IntTower's; (): none
    dots: tuple[Dot, ...] = ()


class Interacting(nn.Module):
    """One interacting layer (section 4.4): attention, residual, ReLU."""

    def __init__(self, size: int, heads: int, head_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.residual = (
            nn.Linear(size, heads * head_size, bias=False) for _ in range(4)
        )

    def forward(self, E: Tensor) -> Tensor:
        """Mixed fields [B, M, H·d]."""
        Q, K, V = (
            part(E).unflatten(2, (self.heads, -1)).transpose(1, 2)  # [B, H, M, d]
            for part in (self.query, self.key, self.value)
        )
        # the paper does not divide by √d
        a = torch.softmax(Q @ K.transpose(2, 3), 3)  # [B, H, M, M]
        mixed = (a @ V).transpose(1, 2).flatten(2)  # [B, M, H·d]
        return torch.relu(mixed + self.residual(E))


class AutoIntNetwork(Network):
    """The weights of AutoInt other than its table."""

    def __init__(self, shape: Shape, config: AutoIntConfig) -> None:
        super().__init__()
        mixed = config.heads * config.head_size  # H·d
        sizes = (config.width, *[mixed] * (config.layers - 1))
        self.fields = FieldVectors(shape)
        self.interacting = nn.ModuleList(
            Interacting(size, config.heads, config.head_size) for size in sizes
        )
        self.out = nn.Linear(self.fields.count * mixed, 1, bias=False)
        self.deep = MLP(flat_size(shape), (*config.hidden, 1)) if config.hidden else None
        self.dots = Dots(shape, config.dots)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        E = self.fields(inputs)  # [B, M, D]
        for layer in self.interacting:
            E = layer(E)  # [B, M, H·d]
        logit: Tensor = self.out(E.flatten(1)).squeeze(1) + self.bias  # [B]
        if self.deep is not None:
            logit = logit + self.deep(flat(inputs)).squeeze(1)
        return sum(self.dots(inputs), logit)


class AutoInt(Learner):
    """AutoInt, as a :class:`Learner`; it is not decoupled, so it cannot be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: its shape.
        training: how it learns. The default rates: ten times the stream's costs .010 AUC
            (MovieLens-1M).
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: AutoIntConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or AutoIntConfig()
        super().__init__(
            spec,
            config,
            lambda shape: AutoIntNetwork(shape, config),
            width=config.width,
            training=training or Training(),
            seed=seed,
            device=device,
        )
