"""The default score: parts, weights, and what happens when a part goes wrong."""

from typing import Any

import numpy as np
import pytest

from inttower.base.base_filter import Actions
from inttower.base.mixing import MixingWeights, gate, stacked_mixing
from inttower.core.learner import Learner
from inttower.core.spec import FeatureSpec, Field
from inttower.errors import SpecError
from inttower.evaluate import auc, logloss
from inttower.models.dcn import DCN
from inttower.models.dots import state_dots
from inttower.models.inttower import IntTower, IntTowerConfig
from inttower.models.stack_warm_up import WarmUpRows
from inttower.models.stacked import Stacked, StackedConfig
from inttower.models.two_tower import TwoTower
from inttower.state.belief import SLOW
from inttower.state.factors import FactorConfig
from inttower.state.user_state import UserStateConfig

SPEC = FeatureSpec(
    (
        Field("user_id", "user", "sparse", is_id=True),
        Field("item_id", "item", "sparse", is_id=True),
        Field("kind", "item", "sparse"),
    )
)
SMALL = UserStateConfig(factors=FactorConfig(size=3, iterations=4), speeds=(SLOW,))


def network(spec: FeatureSpec) -> Learner:
    config = IntTowerConfig(width=4, hidden=(8, 8), fm_rank=4, dots=state_dots(spec))
    return IntTower(spec, config, seed=1)


class World:
    """Users who like items or not by three hidden numbers; one row a second."""

    def __init__(self, rows: int, strength: float) -> None:
        rng = np.random.default_rng(0)
        u, v = rng.standard_normal((150, 3)), rng.standard_normal((60, 3))
        self.user, self.item = rng.integers(0, 150, rows), rng.integers(0, 60, rows)
        z = strength * (u[self.user] * v[self.item]).sum(1) - 0.5
        self.labels = (rng.random(rows) < 1 / (1 + np.exp(-z))).astype(np.uint8)
        self.ts = 1000 * np.arange(1, rows + 1)

    def columns(self, rows: Any) -> dict[str, Any]:
        return {
            "user_id": [f"u{u}" for u in self.user[rows]],
            "item_id": [f"i{i}" for i in self.item[rows]],
            "kind": [f"k{i % 4}" for i in self.item[rows]],
        }

    def warm_up(self, count: int) -> WarmUpRows:
        ts = self.ts[:count]
        ones = np.ones(count, np.float32)
        return WarmUpRows(self.columns, ts, self.labels[:count], ones, ts + 1)


def stream(model: Stacked, world: World, start: int, stop: int) -> np.ndarray[Any, Any]:
    found = []
    for at in range(start, stop, 64):
        rows = np.arange(at, min(at + 64, stop))
        clicked = rows[world.labels[rows] > 0]
        actions = Actions(world.columns(clicked), world.ts[clicked] + 1)
        numbers, z = model.shown(world.columns(rows), world.ts[rows], actions)
        model.learn(numbers, world.labels[rows], None, int(world.ts[rows[-1]]) + 1)
        model.close(numbers)
        found.append(z)
    return np.concatenate(found)


@pytest.fixture(scope="module")
def warm() -> tuple[World, Stacked]:
    world = World(5000, 1.5)
    model = Stacked(SPEC, network, StackedConfig(states=(SMALL,)))
    model.fit(world.warm_up(4000))
    return world, model


def restored(model: Stacked) -> Stacked:
    other = Stacked(SPEC, network, StackedConfig(states=(SMALL,)))
    other.load_state(model.state())
    return other


def test_the_state_takes_part_where_it_helps(warm: tuple[World, Stacked]) -> None:
    world, model = warm
    assert model.choices["state_size"] == 3
    assert model.weights["user_state"] > 0
    copy = restored(model)
    z = stream(copy, world, 4000, 5000)
    base = Stacked(SPEC, None, StackedConfig(states=()))
    base.fit(world.warm_up(4000))
    alone = stream(base, world, 4000, 5000)
    labels = world.labels[4000:]
    assert logloss(labels, z) < logloss(labels, alone) - 0.01
    assert auc(labels, z) > auc(labels, alone)


def test_without_signal_the_state_stays_out_and_the_base_decides() -> None:
    world = World(3000, 0.0)
    model = Stacked(SPEC, network, StackedConfig(states=(SMALL,)))
    model.fit(world.warm_up(2000))
    assert model.choices["state_size"] == 0
    assert model.weights["base"] > 0.9
    z = stream(model, world, 2000, 3000)
    p = world.labels[:2000].mean()
    constant = np.full(1000, np.log(p / (1 - p)), np.float32)
    assert logloss(world.labels[2000:], z) < logloss(world.labels[2000:], constant) + 0.005


def test_saved_and_restored_it_goes_on_to_equal_bytes(warm: tuple[World, Stacked]) -> None:
    world, model = warm
    one, two = restored(model), restored(model)
    stream(one, world, 4000, 4100)
    two.load_state(one.state())
    for name, value in one.state().items():
        np.testing.assert_array_equal(value, two.state()[name], err_msg=name)
    np.testing.assert_array_equal(stream(one, world, 4100, 4300), stream(two, world, 4100, 4300))
    assert one.state()["network.dense"].tobytes() == two.state()["network.dense"].tobytes()  # type: ignore[union-attr]


def test_the_served_score_is_what_would_be_recorded(warm: tuple[World, Stacked]) -> None:
    world, model = warm
    copy, rows = restored(model), np.arange(4000, 4040)
    now = int(world.ts[3999]) + 500
    served = copy.score(world.columns(rows), now)
    _, recorded = copy.shown(world.columns(rows), np.full(40, now))
    np.testing.assert_array_equal(served, recorded)


def test_how_a_stream_is_cut_into_calls_makes_no_difference(warm: tuple[World, Stacked]) -> None:
    world, model = warm
    rows = np.arange(4000, 4060)
    clicked = rows[world.labels[rows] > 0]
    whole, single = restored(model), restored(model)
    actions = Actions(world.columns(clicked), world.ts[clicked] + 1)
    _, z = whole.shown(world.columns(rows), world.ts[rows], actions)
    found = []
    for row in rows:
        one = np.array([row])
        found.append(single.shown(world.columns(one), world.ts[one])[1])
        if world.labels[row]:
            single.acted(Actions(world.columns(one), world.ts[one] + 1))
    np.testing.assert_allclose(z, np.concatenate(found), atol=1e-5)


def test_a_sick_network_loses_its_say_within_five_hundred_rows(
    warm: tuple[World, Stacked],
) -> None:
    """Also after it has been right for long: all the mass is on it at first."""
    world, model = warm
    well, sick = restored(model), restored(model)
    for one in (well, sick):
        one.mixing.log_mass = np.log(np.array([1e-5, 1e-5, 1e-6, 1e-6, 1e-6, 1 - 2.3e-5]))
    assert sick.network is not None
    learner = sick.network
    learner.predict = lambda batch: np.full(len(batch), 3.0, np.float32)  # type: ignore[method-assign]
    stream(sick, world, 4000, 4500)
    stream(well, world, 4000, 4500)
    z, healthy = stream(sick, world, 4500, 5000), stream(well, world, 4500, 5000)
    labels = world.labels[4500:]
    assert sick.weights["network"] < 0.02
    assert logloss(labels, z) < logloss(labels, healthy) * 1.01 + 0.005


def test_a_network_of_no_numbers_does_not_reach_the_score(warm: tuple[World, Stacked]) -> None:
    world, model = warm
    sick = restored(model)
    assert sick.network is not None
    learner = sick.network
    learner.predict = lambda batch: np.full(len(batch), np.nan, np.float32)  # type: ignore[method-assign]
    z = stream(sick, world, 4000, 4300)
    assert np.isfinite(z).all()
    assert sick.weights["network"] < 0.01


def test_a_residual_starts_as_nothing_and_leaves_it() -> None:
    world = World(400, 1.0)
    for make in (network, lambda spec: TwoTower(spec, seed=0)):
        learner = make(SPEC)
        batch = learner.encode(world.columns(np.arange(400)), admit=True)
        offset = np.full(400, 0.3, np.float32)
        learner.fit(batch, world.labels, epochs=0, offset=offset)
        np.testing.assert_allclose(learner.predict(batch), 0.0, atol=1e-6)
        learner.fit(batch, world.labels, epochs=1, batch_size=50, offset=offset)
        assert np.abs(learner.predict(batch)).max() > 1e-4
    with pytest.raises(SpecError, match="start at 0"):
        DCN(SPEC).fit(batch, world.labels, offset=offset)


def test_the_gate_lets_no_state_in_as_mere_shrinkage() -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal(4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-0.4 * z))).astype(np.float64)
    assert gate(z, np.zeros(4000), labels) == (1.0, 0.0)
    other = rng.standard_normal(4000)
    labels = (rng.random(4000) < 1 / (1 + np.exp(-0.5 * z - 0.8 * other))).astype(np.float64)
    assert gate(z, other, labels)[1] > 0


def test_mixing_weights_are_bounded_and_come_back() -> None:
    mixing = stacked_mixing()
    right = np.tile([0.0, 0.0, 2.0], (5000, 1))
    for _ in range(100):
        mixing.update(right[:50], np.ones(50), np.ones(50))
    assert mixing.weights[2] > 0.99
    mixing.update(right[:100], np.zeros(100), np.ones(100))
    assert mixing.weights[2] < 0.05
    other = MixingWeights(mixing.combinations, mixing.prior)
    other.load_state(mixing.state())
    np.testing.assert_array_equal(other.weights, mixing.weights)
