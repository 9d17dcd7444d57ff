"""The embedding table: extra numbers of the own ids, beside embeddings that do not notice them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from inttower.core.batch import Layout
from inttower.core.spec import FeatureSpec
from inttower.core.tables import Embeddings, Gathered

Toy = Callable[..., tuple[dict[str, Any], Any]]
WIDTH, EXTRA = 4, 3


def _table(spec: FeatureSpec, extra: int, **options: Any) -> Embeddings:
    return Embeddings(Layout(spec), WIDTH, extra=extra, **options)


def _step(table: Embeddings, columns: dict[str, Any]) -> Gathered:
    """A step down the sum of the squares of all that is gathered."""
    rows, count = table.encode(columns, admit=True)
    gathered = table.gather(rows, grad=True)
    parts = (*gathered.fields, *gathered.first, *gathered.extra)
    loss = torch.stack([(part - 1).square().sum() for part in parts]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    table.step(gathered, 1 / count, lr=0.05)
    return gathered


def test_embeddings_do_not_notice_extra_numbers(spec: FeatureSpec, toy: Toy) -> None:
    columns, _ = toy(50)
    plain, wide = _table(spec, 0), _table(spec, EXTRA)
    for _ in range(3):
        assert _step(plain, columns).extra[0].shape == (50, 0)
        assert _step(wide, columns).extra[0].shape == (50, EXTRA)
    assert torch.equal(plain.weight, wide.weight[:, : WIDTH + 1])


def test_extra_numbers_are_of_the_own_ids_alone(spec: FeatureSpec, toy: Toy) -> None:
    columns, _ = toy(50)
    table = _table(spec, EXTRA)
    for _ in range(30):
        gathered = _step(table, columns)
    for side, name in enumerate(("user_id", "item_id")):
        values = table.values(table.rows_of(name, columns[name]))[:, WIDTH + 1 :]
        assert values.min() > 0.3  # they started near 0, and each has gone towards 1
        assert np.abs(values - gathered.extra[side].detach().numpy()).max() < 0.1
    tastes = table.values(table.rows_of("taste", ["even", "odd"]))
    unknown = table.values(np.array([table.unknown_row("taste")]))
    np.testing.assert_array_equal(tastes[:, WIDTH + 1 :], unknown[[0, 0], WIDTH + 1 :])


def test_a_new_id_has_the_extra_numbers_of_the_unknown_one(spec: FeatureSpec, toy: Toy) -> None:
    columns, _ = toy(50)
    table = _table(spec, EXTRA)
    table.encode(columns, admit=True)
    rows = np.array([table.unknown_row("item_id"), *table.rows_of("item_id", ["i1"])])
    unknown, new = table.values(rows)
    np.testing.assert_array_equal(unknown, new)
    assert np.abs(new[WIDTH + 1 :]).min() > 0


@pytest.mark.parametrize("extra", [0, EXTRA])
def test_state_and_back(spec: FeatureSpec, toy: Toy, extra: int) -> None:
    columns, _ = toy(200, users=100, items=100)  # more than there is room for at first
    table, other = _table(spec, extra, seed=1), _table(spec, extra, seed=2)
    _step(table, columns)
    other.load_state(table.state())
    for one in (table, other):
        _step(one, toy(50, seed=3, users=200)[0])
    used = table.rows_used
    assert used == other.rows_used
    assert torch.equal(table.weight[:used], other.weight[:used])


def test_a_row_that_goes_to_another_id_starts_anew(spec: FeatureSpec, toy: Toy) -> None:
    table = _table(spec, 0, limit=10)
    for seed in range(3):
        _step(table, toy(50, seed=seed, users=10, items=10)[0])
    strangers = {**toy(9, seed=9, users=9, items=9)[0], "item_id": [f"new{k}" for k in range(9)]}
    table.encode(strangers, admit=True)
    assert table.generation > 0  # they have taken rows that others had
    rows = table.rows_of("item_id", strangers["item_id"])
    state = table.state()
    learnt = np.asarray(state["table.adagrad"])[table.rows_of("taste", ["even"])]
    assert (np.asarray(state["table.adagrad"])[rows] == np.float32(1e-4)).all()
    assert (learnt > 1e-3).all()
    assert (table.learnt[rows] == 0).all()
