"""Simulates users: which part of a ranking is shown, and which actions follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from bench.simulator.draws import (
    Floats,
    Hashes,
    Ints,
    Purpose,
    keyed,
    normal,
    normal_of,
    uniform,
    uniform_of,
)
from bench.simulator.world import SimulatedRequests, SimulatedWorld
from bench.simulator.world_settings import ActionSettings

Flags = NDArray[np.bool_]
CLICK = "click"


@dataclass(frozen=True, slots=True)
class ShownItems:
    """Slates that were shown, and their truth: n requests, m positions.

    Attributes:
        items: int64 [n, m], rows of the catalogue by position.
        probability: float64 [n, m], of a click if the item is looked at.
        examined: bool [n, m].
        clicked: bool [n, m].
        seen_probability: float64 [n, m], of a click at this position.
    """

    items: Ints
    probability: Floats
    examined: Flags
    clicked: Flags
    seen_probability: Floats


@dataclass(frozen=True, slots=True)
class DoneActions:
    """Actions on shown items, one a row.

    Attributes:
        request: int64 [k], rows of the requests.
        position: int64 [k].
        kind: int64 [k], numbers of the kinds in the settings' order.
        delay_ms: int64 [k], since the item was shown; at least 1.
        value: float64 [k], NaN where the kind has none.
    """

    request: Ints
    position: Ints
    kind: Ints
    delay_ms: Ints
    value: Floats

    def __len__(self) -> int:
        return len(self.request)


def keep_shown(
    world: SimulatedWorld, requests: SimulatedRequests, returned: Ints, logits: Floats
) -> Ints:
    """What a heavy ranker keeps of what the pre-ranker returned, best first.

    It sorts by its own noisy view of the truth, blended with the place that an item came at.

    Args:
        world: of the requests.
        requests: n of them.
        returned: int64 [n, k], rows of the catalogue, the pre-ranker's best first.
        logits: float64 [n, k], the true ones.

    Returns:
        int64 [n, shown], columns of ``returned``.
    """
    slate = world.settings.slate
    noise = normal(world.seed, Purpose.HEAVY_RANKER, requests.number[:, None], returned)
    view = _ranks(-(logits + slate.heavy_noise * noise))
    place = np.arange(returned.shape[1])
    key = slate.first_stage * place + (1 - slate.first_stage) * view
    return np.argsort(key, axis=1, kind="stable")[:, : slate.shown]


def show(world: SimulatedWorld, requests: SimulatedRequests, items: Ints) -> ShownItems:
    """Show items [n, m], by position, and see what is looked at and clicked.

    Whether a position is looked at hangs on request and position, whether an item is clicked then
    on request and item: the same item at the same place in the same request always fares alike.
    """
    positions = np.arange(items.shape[1])
    number = requests.number[:, None]
    probability = expit(world.logits(requests, items))
    seen = world.examination(positions)
    examined = uniform(world.seed, Purpose.EXAMINE, number, positions) < seen
    wants = uniform(world.seed, Purpose.ACT, number, items) < probability
    return ShownItems(items, probability, examined, examined & wants, probability * seen)


def act(world: SimulatedWorld, requests: SimulatedRequests, shown: ShownItems) -> DoneActions:
    """All that is done about shown items, clicks included."""
    found = []
    hashes = keyed(world.seed, requests.number[:, None], shown.items)
    numbered = {name: number for number, name in enumerate(world.settings.actions)}
    click = world.settings.actions[CLICK]
    since_click = delays(click, hashes, numbered[CLICK])
    for name, settings in world.settings.actions.items():
        kind = numbered[name]
        delay = since_click
        done = shown.clicked
        if name != CLICK:
            delay = delays(settings, hashes, kind)
            if settings.after == CLICK:
                delay = delay + since_click
            after = shown.clicked if settings.after == CLICK else shown.examined & ~shown.clicked
            done = after & (uniform_of(hashes, Purpose.ACT, kind + 1) < settings.share)
        request, position = np.nonzero(done)
        price = world.items.price[shown.items[request, position]]
        found.append(
            DoneActions(
                request=request,
                position=position,
                kind=np.full(len(request), kind),
                delay_ms=np.maximum(1, delay[request, position].astype(np.int64)),
                value=price if settings.priced else np.full(len(request), np.nan),
            )
        )
    return DoneActions(
        *(np.concatenate([getattr(f, name) for f in found]) for name in DoneActions.__slots__)
    )


def delays(settings: ActionSettings, hashes: Hashes, kind: int) -> Floats:
    """How long actions of a kind take, in ms, for each hash."""
    mean, sigma = 1000 * settings.delay_s, settings.sigma
    if not sigma:
        return np.asarray(-mean * np.log(uniform_of(hashes, Purpose.DELAY, kind)))
    drawn = normal_of(hashes, Purpose.DELAY, kind)
    return np.asarray(mean * np.exp(sigma * drawn - sigma**2 / 2))


def _ranks(keys: Floats) -> Ints:
    """The rank of each key in its row, from 0, the smallest first."""
    return np.argsort(np.argsort(keys, axis=1, kind="stable"), axis=1, kind="stable")
