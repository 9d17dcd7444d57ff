"""Logistic regression on the dense features: the yardstick of what counters alone are worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inttower.core.learner import Learner
from inttower.core.network import Inputs, Network, Shape
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.errors import SpecError
from inttower.publish.encoders import LogisticEncoder
from inttower.publish.published import ServingEncoder


@dataclass(frozen=True, slots=True)
class LogisticRegressionConfig:
    """It has no shape to choose."""


class _Weights(nn.Module):
    """A weight for each of n numbers, 0 at first; n may be 0, which nn.Linear warns about."""

    def __init__(self, n: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, n))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight.T  # [B, 1]


class LogisticRegressionNetwork(Network):
    """One weight a dense number: a user's part and an item's part, added."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.user, self.item = _Weights(shape.user.dense), _Weights(shape.item.dense)

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits [B]."""
        logit: Tensor = self.user(inputs.user.dense) + self.item(inputs.item.dense)  # [B, 1]
        return logit.squeeze(1) + self.bias  # [B]


class LogisticRegression(Learner):
    """Logistic regression, as a :class:`Learner`; it can be published.

    Args:
        spec: at least one dense field; the others are not read.
        training: how it learns. A few weights on scaled numbers allow large steps.
        seed: has no effect, for the weights start at 0.
        device: that holds the weights, such as ``cuda``.
    """

    reads_ids = False

    def __init__(
        self,
        spec: FeatureSpec,
        *,
        training: Training | None = None,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if not any(f.kind == "dense" for f in spec.fields):
            raise SpecError("logistic regression reads dense fields, and the spec has none")
        super().__init__(
            spec,
            LogisticRegressionConfig(),
            LogisticRegressionNetwork,
            width=0,
            training=training or Training(lr=1e-2, lr_end=1e-3, lr_stream=1e-3),
            seed=seed,
            device=device,
        )

    def serving_encoder(self) -> ServingEncoder:
        """Encoders with a copy of the current weights; later steps do not change them."""
        return LogisticEncoder(**self.published())
