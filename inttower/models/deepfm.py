"""DeepFM: a factorisation machine and a deep network on the same embeddings.

*DeepFM: A Factorization-Machine based Neural Network for CTR Prediction*, IJCAI 2017
(arXiv 1703.04247), section 2. The logit is

    bias + Σ_j w_j x_j + Σ_{j<k} ⟨V_j, V_k⟩ x_j x_k + MLP(embeddings and dense numbers)

over the M fields of both sides. Dense numbers are fields of the sums too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inttower.core.fields import FieldVectors, FirstOrder, flat, flat_size
from inttower.core.learner import Learner
from inttower.core.mlp import MLP
from inttower.core.network import Inputs, Network, Shape
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import Dot, Dots


@dataclass(frozen=True, slots=True)
class DeepFMConfig:
    """The shape of DeepFM."""

    width: int = 32  # D
    hidden: tuple[int, ...] = (300, 300, 128)  # as IntTower's towers
    dots: tuple[Dot, ...] = ()


class DeepFMNetwork(Network):
    """The weights of DeepFM other than its table."""

    def __init__(self, shape: Shape, config: DeepFMConfig) -> None:
        super().__init__()
        self.first = FirstOrder(shape)
        self.fields = FieldVectors(shape)
        # the MLP reads dense numbers as they are: vectors that are linear in them would add nothing
        self.deep = MLP(flat_size(shape), (*config.hidden, 1))
        self.dots = Dots(shape, config.dots)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        V = self.fields(inputs)  # [B, M, D]
        # Σ_{j<k} ⟨V_j, V_k⟩ = ½ (|Σ V_j|² − Σ |V_j|²): M steps in place of M²
        fm = (V.sum(1).square() - V.square().sum(1)).sum(1) / 2  # [B]
        deep = self.deep(flat(inputs)).squeeze(1)  # [B]
        logit: Tensor = self.first(inputs) + fm + deep + self.bias  # [B]
        return sum(self.dots(inputs), logit)


class DeepFM(Learner):
    """DeepFM, as a :class:`Learner`; it is not decoupled, so it cannot be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: its shape.
        training: how it learns. The default rates: three times the warm-up's changes nothing, ten
            times the stream's costs .004 AUC (MovieLens-1M).
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: DeepFMConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or DeepFMConfig()
        super().__init__(
            spec,
            config,
            lambda shape: DeepFMNetwork(shape, config),
            width=config.width,
            training=training or Training(),
            seed=seed,
            device=device,
        )
