"""Position, learnt as a bias and left out of what is served, keeps a good place from looking good.

The learner is the base's logistic filter; the world shows items in an order that has nothing to do
with how good they are, so whoever does not know the position takes the order for quality.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bench.simulator.behaviour import show
from bench.simulator.draws import Purpose, normal
from bench.simulator.truth import truth_of_rankings
from bench.simulator.world import DAY_MS, SimulatedWorld
from bench.simulator.world_settings import WorldSettings
from inttower.base.logistic_filter import FilterAverage, FilterConfig

ITEMS, SHOWN = 40, 8
Array = NDArray[Any]


@pytest.fixture(scope="module")
def world() -> SimulatedWorld:
    """Only items and positions differ, so an item's logit is its quality."""
    alike = {"taste": 0, "user": 0, "mood": 0, "context": 0}
    settings = WorldSettings().with_changes(
        {
            "items": {"count": ITEMS, "new_a_day": 0},
            "clicks": {"rate": 0.15, "quality": 0.8, "position_bias": 0.8, **alike},
            "slate": {"candidates": 20, "returned": SHOWN, "shown": SHOWN},
        }
    )
    return SimulatedWorld(settings, seed=2, requests=8_000, span_ms=DAY_MS)


def learnt(world: SimulatedWorld, *, with_position: bool) -> Array:
    """Item logits [ITEMS], as served: the weights of positions left out."""
    requests = world.requests
    candidates = world.candidates(requests)
    number = requests.number[:, None]
    place = -(candidates % ITEMS) + 15 * normal(world.seed, Purpose.POLICY, number, candidates)
    order = np.argsort(place, axis=1)[:, :SHOWN]
    shown = show(world, requests, np.take_along_axis(candidates, order, axis=1))
    rows = shown.items.size
    x = np.zeros((rows, 1 + ITEMS + SHOWN), np.float32)
    x[:, 0] = 1
    x[np.arange(rows), 1 + shown.items.ravel()] = 1
    x[np.arange(rows), 1 + ITEMS + np.tile(np.arange(SHOWN), len(requests))] = 1
    inputs = x.shape[1] if with_position else 1 + ITEMS
    config = FilterConfig(np.arange(inputs), ridge=1.0)
    model = FilterAverage([config], x.shape[1], base_logit=-2.0)
    labels = shown.clicked.ravel().astype(np.float32)
    moments = np.arange(0, rows + 1, SHOWN)
    model.learn(x, labels, np.ones(rows, np.float32), moments)
    return model.weights[1 : 1 + ITEMS]


def regret(world: SimulatedWorld, scores: Array) -> float:
    """Of ranking all candidates by these scores of items."""
    candidates = world.candidates(world.requests)
    best = np.argsort(-scores[candidates], axis=1)[:, :SHOWN]
    served = np.take_along_axis(candidates, best, axis=1)
    return float(truth_of_rankings(world, world.requests, candidates, served).regret.mean())


def test_position_as_a_bias_recovers_the_truth(world: SimulatedWorld) -> None:
    truth = world.items.quality
    without, with_it = learnt(world, with_position=False), learnt(world, with_position=True)
    assert spearmanr(with_it, truth).statistic > 0.9
    assert spearmanr(with_it, truth).statistic > spearmanr(without, truth).statistic + 0.05
    assert regret(world, with_it) < 0.5 * regret(world, without)
    # what stood at the top looks better than it is
    favoured = -np.arange(ITEMS)
    assert abs(spearmanr(with_it - truth, favoured).statistic) < abs(
        spearmanr(without - truth, favoured).statistic
    )
