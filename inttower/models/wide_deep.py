"""Wide & Deep: a linear model and a deep one, trained together.

*Wide & Deep Learning for Recommender Systems*, DLRS 2016 (arXiv 1606.07792), section 3. The logit
is w·x + MLP(a) + bias, x the features and the hand-made crosses, a the embeddings. The crosses are
the dots of the config. The paper trains the wide part by FTRL; here every weight of an id learns by
Adagrad, as in all models, which gives rare ids large steps for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from inttower.core.fields import FirstOrder, flat, flat_size
from inttower.core.learner import Learner
from inttower.core.mlp import MLP
from inttower.core.network import Inputs, Network, Shape
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dots import Dot, Dots


@dataclass(frozen=True, slots=True)
class WideDeepConfig:
    """The shape of Wide & Deep."""

    width: int = 32  # D
    hidden: tuple[int, ...] = (300, 300, 128)  # as IntTower's towers
    dots: tuple[Dot, ...] = ()


class WideDeepNetwork(Network):
    """The weights of Wide & Deep other than its table."""

    def __init__(self, shape: Shape, config: WideDeepConfig) -> None:
        super().__init__()
        self.wide = FirstOrder(shape)
        self.deep = MLP(flat_size(shape), (*config.hidden, 1))
        self.dots = Dots(shape, config.dots)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        deep = self.deep(flat(inputs)).squeeze(1)  # [B]
        logit: Tensor = self.wide(inputs) + deep + self.bias  # [B]
        return sum(self.dots(inputs), logit)


class WideDeep(Learner):
    """Wide & Deep, as a :class:`Learner`; it is not decoupled, so it cannot be published.

    Args:
        spec: at least one embedded field a side (each side has its id).
        config: its shape.
        training: how it learns. The default rates: three times the warm-up's changes nothing, ten
            times the stream's costs .007 AUC (MovieLens-1M).
        seed: of its first weights.
        device: that holds the weights, such as ``cuda``.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        config: WideDeepConfig | None = None,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        config = config or WideDeepConfig()
        super().__init__(
            spec,
            config,
            lambda shape: WideDeepNetwork(shape, config),
            width=config.width,
            training=training or Training(),
            seed=seed,
            device=device,
        )
