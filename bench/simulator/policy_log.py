"""Simulates a log without a system: a policy of the simulator ranks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.simulator.behaviour import DoneActions, ShownItems, act, keep_shown, show
from bench.simulator.delivery import Deliveries, EventKeys, deliver
from bench.simulator.draws import Floats, Ints, Purpose, normal, uniform
from bench.simulator.world import SimulatedRequests, SimulatedWorld

Policy = Literal["random", "popularity"]
POLICIES: tuple[Policy, ...] = ("random", "popularity")
# requests worked on at a time: some megabytes
_CHUNK = 2_000
# how well a policy by popularity knows an item's quality
_POPULARITY_NOISE = 0.7


@dataclass(frozen=True, slots=True)
class SimulatedChunk:
    """Requests in a row with everything that came of them: n requests, m positions, k actions.

    Attributes:
        requests: in time order.
        shown: what was shown.
        impressions: deliveries of n * m impressions, row by row.
        actions: what was done.
        action_keys: when, by whom and on what; k rows.
        action_deliveries: deliveries of the k actions.
    """

    requests: SimulatedRequests
    shown: ShownItems
    impressions: Deliveries
    actions: DoneActions
    action_keys: EventKeys
    action_deliveries: Deliveries

    @property
    def events(self) -> int:
        """Impressions and actions, lost ones included and second arrivals not."""
        return self.shown.items.size + len(self.actions)


def simulate_log(world: SimulatedWorld, policy: Policy = "popularity") -> Iterator[SimulatedChunk]:
    """All requests of a world, ranked by a policy.

    Args:
        world: whose requests.
        policy: ``random``: shown items are drawn; ``popularity``: the best of the candidates by a
            noisy view of their quality, so that popular items are at the top.
    """
    for start in range(0, len(world), _CHUNK):
        requests = world.requests.part(start, start + _CHUNK)
        shown = show(world, requests, _ranked(world, requests, policy))
        yield happen(world, requests, shown)


def happen(
    world: SimulatedWorld,
    requests: SimulatedRequests,
    shown: ShownItems,
    shown_at: Ints | None = None,
) -> SimulatedChunk:
    """What is done about shown items, and how all of it is delivered.

    Args:
        world: of the requests.
        requests: n of them.
        shown: for each.
        shown_at: int64 [n], when, in ms of the world; None: at the time of the request.
    """
    at = requests.ts if shown_at is None else shown_at
    width = shown.items.shape[1]
    impressions = EventKeys(
        request=np.repeat(requests.number, width),
        item=shown.items.ravel(),
        kind=np.full(shown.items.size, -1),
        ts=np.repeat(at, width),
        user=np.repeat(requests.user, width),
    )
    actions = act(world, requests, shown)
    keys = EventKeys(
        request=requests.number[actions.request],
        item=shown.items[actions.request, actions.position],
        kind=actions.kind,
        ts=at[actions.request] + actions.delay_ms,
        user=requests.user[actions.request],
    )
    delivery = world.settings.delivery
    return SimulatedChunk(
        requests=requests,
        shown=shown,
        impressions=deliver(delivery, world.seed, impressions),
        actions=actions,
        action_keys=keys,
        action_deliveries=deliver(delivery, world.seed, keys),
    )


def _ranked(world: SimulatedWorld, requests: SimulatedRequests, policy: Policy) -> Ints:
    """Items [n, shown] by position."""
    slate = world.settings.slate
    candidates = world.candidates(requests)
    number = requests.number[:, None]
    key: Floats
    if policy == "random":
        key = uniform(world.seed, Purpose.POLICY, number, candidates)
        order = np.argsort(key, axis=1)[:, : slate.shown]
        return np.take_along_axis(candidates, order, axis=1)
    noise = normal(world.seed, Purpose.POLICY, number, candidates)
    key = -world.items.quality[candidates] + _POPULARITY_NOISE * noise
    order = np.argsort(key, axis=1)[:, : slate.returned]
    returned = np.take_along_axis(candidates, order, axis=1)
    kept = keep_shown(world, requests, returned, world.logits(requests, returned))
    return np.take_along_axis(returned, kept, axis=1)
