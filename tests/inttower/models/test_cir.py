"""CIR: the contrast is what it says, and a config that asks for it gets it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from inttower.core.network import Inputs
from inttower.core.spec import FeatureSpec
from inttower.models.inttower import IntTower, IntTowerConfig, IntTowerNetwork
from tests.inttower.conftest import SPEC

SHAPE = IntTowerConfig(width=4, hidden=(8, 8, 8), heads=2, head_size=3, cir=0.5)
ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 3), st.booleans()), min_size=1, max_size=12
)


def by_hand(
    rows: list[tuple[int, int, bool]], u: torch.Tensor, v: torch.Tensor, share: torch.Tensor
) -> float:
    """Mean over the clicked rows of −log of the own item's part among the negatives."""
    u, v = (x.flatten(1).double() / x.flatten(1).double().norm(dim=1, keepdim=True) for x in (u, v))
    clicked = {(user, item) for user, item, click in rows if click}
    losses = []
    for i, (user, item, click) in enumerate(rows):
        if not click:
            continue
        others = {j for j, (_, other, _) in enumerate(rows) if other != item}
        # what the same user clicked elsewhere in the batch is no negative
        others = {j for j in others if (user, rows[j][1]) not in clicked}
        logits = {
            j: float(u[i] @ v[j]) / SHAPE.temperature - float(share[j].log()) for j in (*others, i)
        }
        losses.append(np.logaddexp.reduce(list(logits.values())) - logits[i])
    return float(np.mean(losses)) if losses else 0.0


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_the_contrast_is_that_of_the_definition(
    rows: list[tuple[int, int, bool]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.randn(2, len(rows), 2, 3, generator=generator)
    users, items = (torch.tensor([row[k] for row in rows]) for k in (0, 1))
    share = (items + 1.0) / 10
    inputs = SimpleNamespace(
        user=SimpleNamespace(ids=users), item=SimpleNamespace(ids=items), item_share=share
    )
    network = cast(IntTowerNetwork, IntTower(SPEC, SHAPE).network)
    labels = torch.tensor([float(click) for _, _, click in rows])
    found = network.contrast(cast(Inputs, inputs), u, v, labels)
    np.testing.assert_allclose(found.item(), by_hand(rows, u, v, share), rtol=1e-4, atol=1e-5)


def test_a_step_follows_the_contrast_where_it_is_asked_for(
    spec: FeatureSpec, toy: Callable[..., Any]
) -> None:
    columns, labels = toy(64)
    with_, without = (IntTower(spec, c) for c in (SHAPE, IntTowerConfig(**_plain())))
    losses = [m.learn(m.encode(columns, admit=True), labels) for m in (with_, without)]
    assert losses[0] > losses[1] + 0.1
    assert not np.array_equal(with_.state()["dense"], without.state()["dense"])


def _plain() -> dict[str, Any]:
    return {name: getattr(SHAPE, name) for name in ("width", "hidden", "heads", "head_size")}
