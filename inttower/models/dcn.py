"""DCN-v2: cross layers, each of which multiplies by the inputs once more, and a deep network.

*DCN V2: Improved Deep & Cross Network*, WWW 2021 (arXiv 2008.13535), sections 3.2 to 3.5: the
parallel structure. A cross layer is x_{l+1} = x_0 ∘ (W_l x_l + b_l) + x_l, with W_l of full rank or
U_l V_lᵀ of low rank; x_0 joins all inputs of user and item.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from inttower.core.fields import flat, flat_size
from inttower.core.learner import Learner
from inttower.core.mlp import MLP
from inttower.core.network import Inputs, Network, Shape
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import Dot, Dots


@dataclass(frozen=True, slots=True)
class DCNConfig:
    """The shape of DCN-v2."""

    width: int = 32  # D
    crosses: int = 3  # cross layers: products of up to 4 inputs
    rank: int = 0  # of W; 0: full
    hidden: tuple[int, ...] = (300, 300, 128)  # as IntTower's towers
    dots: tuple[Dot, ...] = ()


class Cross(nn.Module):
    """One cross layer (section 3.2), of full rank or of a low one (section 3.5)."""

    def __init__(self, size: int, rank: int) -> None:
        super().__init__()
        self.W = (
            nn.Sequential(nn.Linear(size, rank, bias=False), nn.Linear(rank, size))
            if rank
            else nn.Linear(size, size)
        )

    def forward(self, x0: Tensor, x: Tensor) -> Tensor:
        """The next x, [B, N]."""
        return x0 * self.W(x) + x  # type: ignore[no-any-return]  # torch types modules so


class DCNNetwork(Network):
    """The weights of DCN-v2 other than its table."""

    def __init__(self, shape: Shape, config: DCNConfig) -> None:
        super().__init__()
        N = flat_size(shape)
        self.crosses = nn.ModuleList(Cross(N, config.rank) for _ in range(config.crosses))
        # one linear layer over [x_L, deep] is the sum of one over each: the MLP ends in its own
        self.out = nn.Linear(N, 1, bias=False)
        self.deep = MLP(N, (*config.hidden, 1))
        self.dots = Dots(shape, config.dots)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        x = x0 = flat(inputs)  # [B, N]
        for cross in self.crosses:
            x = cross(x0, x)
        logit: Tensor = (self.out(x) + self.deep(x0)).squeeze(1) + self.bias  # [B]
        return sum(self.dots(inputs), logit)


class DCN(Learner):
    """DCN-v2, as a :class:`Learner`; it is not decoupled, so it cannot be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: its shape.
        training: how it learns. The default rates: three times the warm-up's changes nothing, ten
            times the stream's costs .002 AUC (MovieLens-1M).
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: DCNConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or DCNConfig()
        super().__init__(
            spec,
            config,
            lambda shape: DCNNetwork(shape, config),
            width=config.width,
            training=training or Training(),
            seed=seed,
            device=device,
        )
