"""The world is as its settings say, and the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from bench.simulator.behaviour import act, delays, show
from bench.simulator.delivery import EventKeys, deliver
from bench.simulator.draws import Purpose, keyed, normal, uniform
from bench.simulator.policy_log import simulate_log
from bench.simulator.world import DAY_MS, HOUR_MS, SimulatedWorld
from bench.simulator.world_settings import (
    PRESETS,
    ActionSettings,
    DeliverySettings,
    WorldSettings,
    preset_world,
    read_world,
)
from settings.errors import ConfigurationError


def small(**tables: object) -> WorldSettings:
    base = {"users": {"count": 400}, "items": {"count": 300}, "slate": {"candidates": 50}}
    return WorldSettings().with_changes(base).with_changes(tables)


def world(seed: int = 0, requests: int = 1_000, **tables: object) -> SimulatedWorld:
    return SimulatedWorld(small(**tables), seed=seed, requests=requests, span_ms=2 * DAY_MS)


def random_clicks(made: SimulatedWorld) -> NDArray[Any]:
    return np.concatenate([c.shown.clicked for c in simulate_log(made, "random")])


@given(st.integers(0, 2**40), st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=4))
def test_a_draw_is_a_function_of_its_keys(seed: int, keys: list[int]) -> None:
    one = uniform(seed, Purpose.ACT, *keys)
    assert 0 < one < 1
    assert one == uniform(seed, Purpose.ACT, *[np.array([k]) for k in keys])[0]
    assert one != uniform(seed, Purpose.LATE, *keys)
    assert one != uniform(seed + 1, Purpose.ACT, *keys)


def test_draws_are_uniform_normal_and_independent_of_neighbours() -> None:
    rows, columns = np.arange(400)[:, None], np.arange(100)
    drawn = uniform(3, Purpose.ACT, rows, columns)
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    assert stats.kstest(normal(3, Purpose.ACT, rows, columns).ravel(), "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:, :-1].ravel(), drawn[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("name", PRESETS)
def test_items_shown_at_random_have_the_click_rate_of_the_settings(name: str) -> None:
    settings = preset_world(name)
    requests = 60_000 // settings.slate.shown
    made = SimulatedWorld(settings, seed=5, requests=requests, span_ms=3 * DAY_MS)
    clicked = random_clicks(made)
    rate = settings.clicks.rate
    # three standard errors, doubled for users that differ
    assert clicked.mean() == pytest.approx(rate, abs=6 * np.sqrt(rate / clicked.size))


def test_clicks_are_as_likely_as_the_truth_says() -> None:
    made = world(requests=6_000, clicks={"rate": 0.2})
    probability, clicked = [], []
    for chunk in simulate_log(made, "popularity"):
        probability.append(chunk.shown.seen_probability.ravel())
        clicked.append(chunk.shown.clicked.ravel())
    p, y = np.concatenate(probability), np.concatenate(clicked)
    for part in np.array_split(np.argsort(p), 10):
        error = np.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(y[part].sum() - p[part].sum()) < 4 * error


def test_position_bias_is_seen_in_random_slates() -> None:
    made = world(requests=20_000, clicks={"rate": 0.2, "position_bias": 0.5})
    by_position = random_clicks(made).mean(axis=0)
    expected = made.examination(np.arange(10))
    assert by_position / by_position[0] == pytest.approx(expected, rel=0.12)
    flat = random_clicks(world(requests=20_000, clicks={"rate": 0.2, "position_bias": 0.0}))
    assert flat.mean(axis=0) == pytest.approx(np.full(10, 0.2), abs=0.02)


def test_the_same_seed_gives_the_same_world_and_another_seed_another() -> None:
    one, two, other = (next(simulate_log(world(seed=s), "popularity")) for s in (1, 1, 2))
    for name in ("items", "probability", "clicked"):
        assert np.array_equal(getattr(one.shown, name), getattr(two.shown, name))
    assert np.array_equal(one.action_deliveries.arrival, two.action_deliveries.arrival)
    assert not np.array_equal(one.shown.items, other.shown.items)


def test_outcomes_do_not_depend_on_what_else_is_shown_or_asked() -> None:
    made = world(clicks={"rate": 0.3})
    whole = made.requests.part(0, 200)
    items = made.candidates(whole)[:, :10]
    together = show(made, whole, items)
    for row in (0, 17, 199):
        alone = show(made, whole.part(row, row + 1), items[row : row + 1])
        assert np.array_equal(alone.clicked[0], together.clicked[row])
    swapped = items.copy()
    swapped[:, 5:] = items[:, :4:-1]
    assert np.array_equal(show(made, whole, swapped).clicked[:, :5], together.clicked[:, :5])


def test_candidates_are_different_exist_and_are_equally_likely() -> None:
    made = world(requests=4_000, items={"count": 300, "new_a_day": 100, "life_h": 24})
    requests = made.requests.part(0, len(made))
    found = made.candidates(requests)
    start, stop = made.offered(requests.ts)
    assert (np.diff(np.sort(found, axis=1), axis=1) > 0).all()
    assert (found >= start[:, None]).all()
    assert (found < stop[:, None]).all()
    assert (made.items.born[found] <= requests.ts[:, None]).all()
    steady = world(requests=4_000, items={"new_a_day": 0})
    counts = np.bincount(steady.candidates(steady.requests).ravel(), minlength=300)
    assert counts.std() < 1.3 * np.sqrt(counts.mean())


def test_a_taste_drifts_as_fast_as_set() -> None:
    hours = 12.0
    made = world(users={"count": 4_000, "drift": 1.0, "drift_h": hours})
    everyone = np.arange(4_000)

    def taste(at_h: float) -> NDArray[Any]:
        return made.tastes(everyone, np.full(4_000, int(at_h * HOUR_MS)))

    then = taste(5.0)
    assert then.std() == pytest.approx(1.0, abs=0.02)
    for later in (3.0, 12.0, 36.0):
        correlation = np.corrcoef(then.ravel(), taste(5.0 + later).ravel())[0, 1]
        assert correlation == pytest.approx(np.exp(-later / hours), abs=0.04)
    still = world(users={"drift": 0.0})
    some = np.arange(400)
    assert np.array_equal(
        still.tastes(some, np.zeros(400, np.int64)), still.tastes(some, np.full(400, DAY_MS))
    )


def test_new_users_come_when_they_join_and_old_ones_return() -> None:
    made = world(requests=5_000, users={"count": 400, "new_share": 0.5})
    requests = made.requests
    assert len(requests) == 5_000
    assert (np.diff(requests.ts) >= 0).all()
    assert (requests.ts >= made.users.joined[requests.user]).all()
    assert (made.users.joined > 0).mean() == pytest.approx(0.5, abs=0.1)
    days = {(u, t) for u, t in zip(requests.user, requests.ts // DAY_MS, strict=True)}
    assert len(days) > len(np.unique(requests.user))


@given(st.floats(0.5, 5_000), st.sampled_from([0.0, 0.4, 1.0]), st.integers(0, 2**20))
def test_delays_have_the_mean_and_form_of_the_settings(
    mean: float, sigma: float, seed: int
) -> None:
    keys = np.arange(20_000)
    settings = ActionSettings(delay_s=mean, sigma=sigma)
    found = delays(settings, keyed(seed, keys), 1)
    assert found.mean() == pytest.approx(1000 * mean, rel=0.06)
    median = mean * np.log(2) if sigma == 0 else mean * np.exp(-(sigma**2) / 2)
    assert np.median(found) == pytest.approx(1000 * median, rel=0.06)


def test_actions_follow_what_they_follow() -> None:
    made = world(
        requests=4_000,
        clicks={"rate": 0.3},
        actions={
            "buy": {"after": "click", "share": 0.2, "delay_s": 100, "priced": True},
            "hide": {"share": 0.1},
        },
    )
    requests = made.requests
    shown = show(made, requests, made.candidates(requests)[:, :10])
    done = act(made, requests, shown)
    kinds = list(made.settings.actions)
    assert (done.kind == kinds.index("click")).sum() == shown.clicked.sum()
    of = {kind: done.kind == kinds.index(kind) for kind in kinds}
    clicked = shown.clicked[done.request, done.position]
    assert clicked[of["buy"]].all()
    assert not clicked[of["hide"]].any()
    assert of["buy"].sum() / shown.clicked.sum() == pytest.approx(0.2, abs=0.02)
    untouched = (shown.examined & ~shown.clicked).sum()
    assert of["hide"].sum() / untouched == pytest.approx(0.1, abs=0.02)
    assert np.isfinite(done.value[of["buy"]]).all()
    assert np.isnan(done.value[of["click"]]).all()
    asked = np.full((len(requests), 10), -1)
    asked[done.request[of["click"]], done.position[of["click"]]] = done.delay_ms[of["click"]]
    buys = of["buy"]
    assert (done.delay_ms[buys] >= asked[done.request[buys], done.position[buys]]).all()


def events(count: int) -> EventKeys:
    numbers = np.arange(count)
    return EventKeys(
        request=numbers, item=numbers % 7, kind=numbers % 2 - 1, ts=numbers * 10, user=numbers % 500
    )


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**20))
def test_shares_of_late_lost_and_repeated_events_are_as_set(
    late: float, impression_late: float, lost: float, twice: float, seed: int
) -> None:
    settings = DeliverySettings(
        late_share=late,
        late_impression_share=impression_late,
        lost_share=lost,
        duplicate_share=twice,
    )
    some = events(20_000)
    found = deliver(settings, seed, some)
    acted = some.kind >= 0
    assert found.late[acted].mean() == pytest.approx(late, abs=0.02)
    assert found.late[~acted].mean() == pytest.approx(impression_late, abs=0.02)
    assert found.lost.mean() == pytest.approx(lost, abs=0.02)
    again = found.again >= 0
    assert not (again & found.lost).any()
    assert again.mean() == pytest.approx(twice * (1 - lost), abs=0.02)
    assert (found.arrival >= some.ts).all()
    assert (found.again[again] > found.arrival[again]).all()
    held = (found.arrival - some.ts)[found.late]
    assert (held >= 1_000).all()
    assert (held < 605_000).all()
    assert np.array_equal(found.stamp, some.ts)


def test_a_wrong_clock_is_the_users_and_moves_its_stamps_alone() -> None:
    settings = DeliverySettings(wrong_clock_share=0.2, wrong_clock_s=(60, 3_600))
    some = events(20_000)
    found = deliver(settings, 3, some)
    off = found.stamp - some.ts
    wrong = off != 0
    assert wrong.mean() == pytest.approx(0.2, abs=0.06)
    assert (np.abs(off[wrong]) >= 60_000).all()
    assert (off > 0).any()
    assert (off < 0).any()
    for user in np.unique(some.user)[:20]:
        assert len(np.unique(off[some.user == user])) == 1
    right = deliver(DeliverySettings(), 3, some)
    assert np.array_equal(found.arrival, right.arrival)


def test_an_outage_delivers_nothing_and_then_everything_at_once() -> None:
    outage = {"start_s": 50.0, "seconds": 30.0}
    settings = small(delivery={"outages": [outage]}).delivery
    some = events(20_000)
    before = deliver(small().delivery, 0, some).arrival
    after = deliver(settings, 0, some).arrival
    inside = (before >= 50_000) & (before < 80_000)
    assert inside.sum() > 1_000
    assert (after[inside] == 80_000).all()
    assert np.array_equal(after[~inside], before[~inside])


def test_an_impossible_world_is_refused_with_its_place(tmp_path: Path) -> None:
    for changes, words in (
        ({"clicks": {"rate": 1.5}}, "clicks.rate"),
        ({"clicks": {"speed": 1}}, "speed"),
        ({"slate": {"shown": 500}}, "returned"),
        ({"items": {"count": 10}}, "candidates"),
        ({"actions": {"click": {"after": "click"}}}, "examined"),
        ({"delivery": {"late_s": [9, 1]}}, "late_s"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            WorldSettings().with_changes(changes)
    with pytest.raises(ConfigurationError, match="no world"):
        preset_world("radio")
    with pytest.raises(ConfigurationError, match="position_bias"):
        world(clicks={"rate": 0.9, "position_bias": 1.0})
    file = tmp_path / "world.toml"
    file.write_text("[clicks]\nrate = 0.02\n")
    assert (
        read_world(file, preset_world("shop")).clicks
        == preset_world("shop").with_changes({"clicks": {"rate": 0.02}}).clicks
    )
    file.write_text("[clicks\n")
    with pytest.raises(ConfigurationError, match=r"world\.toml"):
        read_world(file, preset_world("shop"))
