"""Dots: additive terms ⟨w ∘ x, y⟩ of a dense field x of the user and a dense field y of the item.

They are hand-made crosses that any model can have. Every network takes them in the same form, so
that a comparison of models does not depend on who has a cross. (Logistic regression has none: it
reads single numbers.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inttower.core.network import Inputs, Shape
from inttower.core.spec import FeatureSpec
from inttower.errors import SpecError

# dense fields that a user state adds; the user side has one a speed, with this prefix
USER_STATE = "user_state_"
ITEM_FACTORS = "item_factors"
ITEM_BIAS = "item_factor_bias"


@dataclass(frozen=True, slots=True)
class Dot:
    """An additive term ⟨w ∘ x, y⟩ of a dense field of the user and one of the item, both raw.

    For example a user's residuals by genre with an item's genres, or a user's state with the item's
    factors.

    Args:
        user: name of a dense field of the user side.
        item: one of the item side, of the same width.
        first: first value of the weights w: 0 for a term to be learnt, 1 for one that is a logit
            already.
    """

    user: str
    item: str
    first: float = 0.0


def state_dots(spec: FeatureSpec) -> tuple[Dot, ...]:
    """The terms of a spec that has the fields of a user state (:mod:`inttower.state.user_state`).

    Together they start as v·m, the state's own prediction of the logit without the item's bias. The
    bias is one of the item's dense inputs, whose weight is learnt.
    """
    names = [f.name for f in spec.of_side("user", "dense") if f.name.startswith(USER_STATE)]
    return tuple(Dot(name, ITEM_FACTORS, first=1 / len(names)) for name in names)


class Dots(nn.Module):
    """The weights w of some dots."""

    def __init__(self, shape: Shape, dots: Sequence[Dot]) -> None:
        super().__init__()
        self.slices = [_slices(shape, dot) for dot in dots]
        self.weights = nn.ParameterList(
            torch.full((u.stop - u.start,), dot.first)
            for dot, (u, _) in zip(dots, self.slices, strict=True)
        )

    def forward(self, inputs: Inputs) -> list[Tensor]:
        """The term of each dot, [B] each; the caller adds them to the logit."""
        return [
            (inputs.user.raw[:, u] * w * inputs.item.raw[:, v]).sum(1)
            for w, (u, v) in zip(self.weights, self.slices, strict=True)
        ]

    def products(self, inputs: Inputs) -> list[Tensor]:
        """The x ∘ y of each dot, [B, its width] each: inputs of a network that reads crosses."""
        return [inputs.user.raw[:, u] * inputs.item.raw[:, v] for u, v in self.slices]


def _slices(shape: Shape, dot: Dot) -> tuple[slice, slice]:
    (side_u, u), (side_v, v) = shape.dense_slice(dot.user), shape.dense_slice(dot.item)
    if (side_u, side_v) != ("user", "item") or u.stop - u.start != v.stop - v.start:
        raise SpecError(
            f"dot of {dot.user!r} and {dot.item!r}: needs a dense field of the user side and one"
            " of the item side, equally wide"
        )
    return u, v
