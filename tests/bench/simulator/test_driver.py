"""The driver against a real server over a real broker: what it sends is what arrives."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bench.simulator.behaviour import show
from bench.simulator.drive import SystemRun, run_system
from bench.simulator.log_files import item_attributes, item_id
from bench.simulator.policy_log import happen
from bench.simulator.world import SimulatedWorld
from bench.simulator.world_settings import WorldSettings
from headrace.cli import app
from settings.errors import HeadraceError
from streaming.kafka.topics import CLICKS, IMPRESSIONS, ITEMS

if TYPE_CHECKING:
    from tests.serving.conftest import World

# the outage then lasts over a second of the clock: a busy machine does not jump over it
SPEED = 10.0
REQUESTS = 30
SETTINGS = WorldSettings().with_changes(
    {
        "users": {"count": 50, "new_share": 0.5, "requests_a_session": 1},
        "items": {"count": 60, "new_a_day": 20_000},
        "clicks": {"rate": 0.3},
        "slate": {"candidates": 20, "returned": 10, "shown": 5},
        "actions": {"click": {"delay_s": 2}, "like": {"delay_s": 5, "share": 0.5}},
        "delivery": {
            "late_s": (1, 20),
            "duplicate_share": 0.2,
            "lost_share": 0.1,
            "wrong_clock_share": 0.2,
            # twelve to twenty days: half of them in a future that nobody believes
            "wrong_clock_s": (2e7, 4e7),
            "outages": [{"start_s": 10, "seconds": 15}],
        },
    }
)


@pytest.fixture(scope="module")
def made() -> SimulatedWorld:
    return SimulatedWorld(SETTINGS, seed=4, requests=REQUESTS, span_ms=30_000)


@pytest.fixture(scope="module")
def run(shared: World, made: SimulatedWorld) -> SystemRun:
    lines: list[float] = []
    url = f"http://127.0.0.1:{shared.settings.serving.port}"
    found = run_system(
        made, url, speed=SPEED, compare=1.0, progress=lambda done, _: lines.append(done)
    )
    assert lines[-1] == 1.0
    shared.until(lambda: shared.metric("headrace_outbox_pending") == 0)
    return found


def test_what_the_system_took_is_on_its_topics(shared: World, run: SystemRun) -> None:
    for topic, actions in ((IMPRESSIONS, False), (CLICKS, True)):
        there = Counter(
            (e["request_id"], e["user_id"], e["item_id"], e.get("action", ""), e["ts"])
            for e in shared.read(topic)
        )
        sent = Counter(
            (e.request_id, e.user_id, e.item_id, e.action, e.ts)
            for e in run.traffic.sent
            if bool(e.action) == actions
        )
        assert there == sent
        assert max(sent.values()) == 2  # some were delivered twice
    [impression, *_] = shared.read(IMPRESSIONS)
    assert set(impression["context"]) == {"device", "page", "hour"}


def test_every_event_is_sent_lost_or_refused_and_a_wrong_clock_harms_itself_alone(
    run: SystemRun,
) -> None:
    assert run.traffic.unanswered == 0
    assert len(run.traffic.slates) == REQUESTS
    refused = run.report["load"]["given_up"]
    assert refused
    # times that nobody believes, and kinds of action that this server has not declared
    assert {name.rpartition(" ")[2] for name in refused} == {"ts", "action"}
    impressions = {(e.request_id, e.item_id) for e in run.traffic.sent if not e.action}
    missing = REQUESTS * 5 - len(impressions)
    # lost_share of .1, and a tenth of the users is too far ahead
    assert 0.05 < missing / (REQUESTS * 5) < 0.4


def test_nothing_is_posted_before_it_arrives_and_an_outage_holds_it_back(
    run: SystemRun, made: SimulatedWorld
) -> None:
    slates = sorted(run.traffic.slates, key=lambda slate: slate.row)
    shown = show(made, made.requests, np.stack([slate.items for slate in slates]))
    at = np.array([slate.shown_at for slate in slates])
    arrivals = happen(made, made.requests, shown, at).impressions.arrival
    assert (arrivals == 25_000).any()  # the outage's end
    sent = {
        (e.request_id.rpartition("-")[2], e.item_id): e.sent_ms
        for e in reversed(run.traffic.sent)
        if not e.action
    }
    clock = run.traffic.clock
    for number, arrival in enumerate(arrivals.tolist()):
        row, position = divmod(number, 5)
        posted = sent.get((str(row), item_id(int(shown.items[row, position]))))
        assert posted is None or posted >= int(clock.wall(arrival))


def test_the_catalogue_is_sent_as_it_grows(
    shared: World, run: SystemRun, made: SimulatedWorld
) -> None:
    there = {e["id"]: e["attributes"] for e in shared.read(ITEMS)}
    born = np.flatnonzero(made.items.born <= made.requests.ts[-1])
    assert {item_id(n) for n in born.tolist()} <= set(there)
    assert there[item_id(0)] == item_attributes(made, 0)
    assert run.report["load"]["catalogue"]["answered"] > 2


def test_the_report_tells_served_from_best_and_compares_channels(run: SystemRun) -> None:
    report = run.report
    assert 0 < report["served"]["worth"] < report["served"]["best"]
    assert report["load"]["rank"]["ms"]["p50"] > 0
    assert set(report["compared"]["channels"]) == {"champion", "frozen"}
    difference = report["compared"]["differences"]["frozen - champion"]
    assert np.isfinite(difference["click_rate"])
    assert difference["error"] > 0


def test_the_same_world_and_answers_give_the_same_clicks(run: SystemRun) -> None:
    """What people do hangs on the seed and on what they are shown, not on when it was served."""
    slates = sorted(run.traffic.slates, key=lambda slate: slate.row)
    again = SimulatedWorld(SETTINGS, seed=4, requests=REQUESTS, span_ms=30_000)
    shown = show(again, again.requests, np.stack([slate.items for slate in slates]))
    expected = {
        (str(row), item_id(int(shown.items[row, position])))
        for row, position in zip(*np.nonzero(shown.clicked), strict=True)
    }
    clicked = {
        (e.request_id.rpartition("-")[2], e.item_id)
        for e in run.traffic.sent
        if e.action == "click"
    }
    assert clicked
    # the rest was lost, or refused for its clock
    assert clicked <= expected
    assert len(clicked) > 0.6 * len(expected)


def test_the_command_drives_reports_and_keeps_the_traffic(shared: World, tmp_path: Path) -> None:
    arguments = ["--set", f"serving.port={shared.settings.serving.port}", "simulate"]
    arguments += ["--seconds", "1", "--rate", "60", "--speed", "30", "--preset", "video"]
    arguments += ["--with", "items.count=200", "--with", "users.count=20"]
    arguments += ["--with", "delivery.late_s=[1, 5]", "--with", "actions.like.delay_s=5"]
    arguments += ["--keep", str(tmp_path / "kept"), "--json", str(tmp_path / "report.json")]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert "clicks that a ranking is worth" in done.output
    kept = pq.read_table(tmp_path / "kept" / "impressions.parquet").to_pandas()
    sent = report["load"]["events"]["impression"]
    # in the kept log nothing is refused, and arrivals are the same
    assert len(kept) == sent


def test_without_a_server_it_says_so(made: SimulatedWorld, unused_port: Callable[[], int]) -> None:
    with pytest.raises(HeadraceError, match="headrace up"):
        run_system(
            made,
            f"http://127.0.0.1:{unused_port()}",
            speed=1.0,
            compare=0.0,
            progress=lambda _done, _line: None,
        )
