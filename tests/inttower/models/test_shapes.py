"""The presets, and shapes and values that are refused before they spoil a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from inttower.core.spec import FeatureSpec
from inttower.errors import SpecError
from inttower.models.inttower import IntTower, IntTowerConfig

Toy = Callable[..., tuple[dict[str, Any], Any]]


def test_the_presets_are_those_of_the_paper_and_of_its_improvement() -> None:
    paper, plus, last = IntTowerConfig.paper(), IntTowerConfig.plus(), IntTowerConfig.last_layer()
    assert (paper.heads, paper.head_size, paper.first_order, paper.fm_rank) == (4, 64, False, 0)
    assert (plus.heads, plus.head_size, plus.first_order, plus.fm_rank) == (4, 16, True, 32)
    assert (paper.used_layers, plus.used_layers, last.used_layers) == (3, 3, 1)
    assert paper.hidden == plus.hidden == (300, 300, 128)


@pytest.mark.parametrize(
    "wrong", [{"layers": 4}, {"layers": -1}, {"heads": 0}, {"hidden": ()}, {"width": 0}]
)
def test_a_shape_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="of IntTower"):
        IntTowerConfig(**wrong)


def test_what_is_no_text_or_no_label_is_refused(spec: FeatureSpec, toy: Toy) -> None:
    columns, labels = toy(20)
    model = IntTower(spec, IntTowerConfig(width=4, hidden=(8,)))
    numbers: dict[str, Any] = {"user_id": list(range(20)), "genres": [[1]] * 20}
    for name, values in numbers.items():
        with pytest.raises(SpecError, match=f"{name!r} holds a int: give texts"):
            model.encode({**columns, name: values}, admit=True)
    batch = model.encode(columns, admit=True)
    for wrong in (np.nan, 2):
        with pytest.raises(SpecError, match="labels must be 0 or 1"):
            model.learn(batch, np.where(np.arange(20) == 3, wrong, labels))
