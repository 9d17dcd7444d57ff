"""Simulates delivery: events arrive late, twice, never, out of order, with wrong clocks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bench.simulator.behaviour import Flags
from bench.simulator.draws import Floats, Ints, Purpose, keyed, uniform_of
from bench.simulator.world_settings import DeliverySettings


@dataclass(frozen=True, slots=True)
class EventKeys:
    """What names each event, and when and where it happened; int64 [n] each.

    Attributes:
        request: numbers of the requests.
        item: rows of the catalogue.
        kind: number of the action's kind; -1: an impression.
        ts: ms of the world.
        user: rows of the users.
    """

    request: Ints
    item: Ints
    kind: Ints
    ts: Ints
    user: Ints


@dataclass(frozen=True, slots=True)
class Deliveries:
    """What becomes of n events.

    Attributes:
        stamp: int64 [n], the time that the event claims, ms of the world.
        arrival: int64 [n], when it arrives, whatever clock it was stamped by.
        again: int64 [n], when it arrives a second time; -1: never.
        lost: bool [n], it never arrives.
        late: bool [n], it was held up for longer than the network takes.
    """

    stamp: Ints
    arrival: Ints
    again: Ints
    lost: Flags
    late: Flags


def deliver(settings: DeliverySettings, seed: int, events: EventKeys) -> Deliveries:
    """Decide how each event travels; a function of the seed and of the event alone."""
    hashes = keyed(seed, events.request, events.item, events.kind)

    def drawn(purpose: Purpose) -> Floats:
        return uniform_of(hashes, purpose)

    acted = events.kind >= 0
    share = np.where(acted, settings.late_share, settings.late_impression_share)
    late = drawn(Purpose.LATE) < share
    network = -settings.network_ms * np.log(drawn(Purpose.NETWORK))
    held = np.where(late, log_uniform(settings.late_s, drawn(Purpose.LATE_BY)), 0.0)
    arrival = held_back(settings, events.ts + (network + held).astype(np.int64))
    twice = drawn(Purpose.DUPLICATE) < settings.duplicate_share
    more = log_uniform(settings.late_s, drawn(Purpose.DUPLICATE_BY)).astype(np.int64)
    lost = drawn(Purpose.LOST) < settings.lost_share
    return Deliveries(
        stamp=events.ts + clock_errors(settings, seed, events.user),
        arrival=arrival,
        again=np.where(twice & ~lost, held_back(settings, arrival + more), -1),
        lost=lost,
        late=late,
    )


def held_back(settings: DeliverySettings, arrival: Ints) -> Ints:
    """Arrivals [n] in ms, those inside an outage moved to its end."""
    for outage in settings.outages:
        start = int(outage.start_s * 1000)
        end = start + int(outage.seconds * 1000)
        arrival = np.where((arrival >= start) & (arrival < end), end, arrival)
    return arrival


def clock_errors(settings: DeliverySettings, seed: int, users: Ints) -> Ints:
    """How far ahead (behind, if negative) the clocks of users [n] are, in ms."""
    hashes = keyed(seed, users)
    wrong = uniform_of(hashes, Purpose.CLOCK) < settings.wrong_clock_share
    by = log_uniform(settings.wrong_clock_s, uniform_of(hashes, Purpose.CLOCK_BY))
    ahead = uniform_of(hashes, Purpose.CLOCK_BY, 1) < 0.5
    return np.where(wrong, np.where(ahead, by, -by), 0.0).astype(np.int64)


def log_uniform(seconds: tuple[float, float], drawn: Floats) -> Floats:
    """Log-uniform times in ms between two numbers of seconds, from uniform draws."""
    low, high = seconds
    return np.asarray(1000 * low * (high / low) ** drawn)
