"""``bench live``: the running system under simulated traffic, against the targets for live streams.

All parts are started over an empty state folder and driven over HTTP by a simulated world, with
late, repeated and held-up events. The world's time may run faster than the clock: windows, delays
and outages shrink with it, so the system meets the same traffic in less time. When the last window
has passed, the samples are compared with what was sent, and what was served with the truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from rich.table import Table

from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from bench.simulator.attribution_check import check_attribution, sample_records
from bench.simulator.declare_log import DECLARATION_FILE, write_declaration
from bench.simulator.drive import SystemRun, requests_at, run_system
from bench.simulator.traffic import SentEvent
from bench.simulator.world import SimulatedWorld
from bench.simulator.world_settings import WorldSettings
from bench.simulator.write_offline import write_offline
from deploy.local.loop import Loop
from deploy.local.parts import server_url
from deploy.local.probe import FreshnessProbe
from settings.settings import Settings
from streaming.events import Click
from streaming.kafka.ledger import count_events
from streaming.logs.choose import find_log, with_log_file

# of so many clicks one is followed until the server holds it
_FOLLOW = 10
_SETTLED_S = 120.0
# the catalogue's files and a few events, so that the declared log can be opened
_FEW_REQUESTS = 50
# five minutes in which nothing is delivered, after twenty
OUTAGE = {"delivery": {"outages": [{"start_s": 1_200.0, "seconds": 300.0}]}}


@dataclass(frozen=True, slots=True)
class Target:
    """A figure to reach.

    Attributes:
        what: it is.
        floor: the text of the bound that must hold.
        goal: the text of the one that is hoped for.
        found: the figure in a row's figures; None: not measured.
        holds: whether a figure keeps to the floor.
    """

    what: str
    floor: str
    goal: str
    found: Callable[[Mapping[str, Any]], float | None]
    holds: Callable[[float], bool]


def _share(figures: Mapping[str, Any]) -> float | None:
    frozen, champion = (figures["regret"].get(name) for name in ("frozen", "champion"))
    return champion / frozen if champion is not None and frozen else None


TARGETS = (
    Target(
        "impressions and actions lost",
        "0",
        "0",
        lambda f: f["attribution"]["lost_impressions"] + f["attribution"]["lost_actions"],
        lambda x: x == 0,
    ),
    Target(
        "attributed wrongly",
        "0",
        "0",
        lambda f: f["attribution"]["extra_impressions"] + f["attribution"]["wrong_actions"],
        lambda x: x == 0,
    ),
    Target(
        "on-time click -> the user's features, p95 ms",
        "700",
        "400",
        lambda f: f["freshness_ms"]["feature"]["p95"],
        lambda x: x <= 700,
    ),
    Target(
        "on-time click -> served rows, p95 ms",
        "1500",
        "700",
        lambda f: f["freshness_ms"]["vector"]["p95"],
        lambda x: x <= 1500,
    ),
    Target(
        "predicted / observed, as recorded",
        ".9-1.1",
        ".97-1.03",
        lambda f: f["recorded"].get("calibration"),
        lambda x: 0.9 <= x <= 1.1,
    ),
    Target(
        "recorded AUC - AUC as served",
        "<= .003",
        "<= .001",
        lambda f: f["auc_recorded_minus_served"],
        lambda x: x <= 0.003,
    ),
    Target(
        "regret against the frozen start, last half",
        "< 1 in 5 of 5",
        ".5",
        _share,
        lambda x: x < 1,
    ),
)


def bench_live(
    settings: Settings,
    options: Options,
    *,
    preset: str,
    world: WorldSettings,
    seconds: float,
    rate: float,
    speed: float,
    seeds: int,
) -> list[Row]:
    """Run it.

    Args:
        settings: the bench uses its own folder inside their state folder, and empties it.
        options: where the results go.
        preset: name of the world.
        world: its settings.
        seconds: how long each run is driven.
        rate: events a second.
        speed: the world's seconds in one.
        seeds: runs, each of another world of the kind.
    """
    session = Session("live", options)

    def unit(seed: int) -> Unit:
        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            made = SimulatedWorld(
                world,
                seed=seed,
                requests=requests_at(world, rate, seconds),
                span_ms=int(seconds * speed * 1000),
            )
            yield {}, _measure(settings, options, made, preset=preset, speed=speed, say=say)

        return Unit(
            title=f"{preset}, seed {seed}",
            key={
                "preset": preset,
                "world": repr(world),
                "seconds": seconds,
                "rate": rate,
                "speed": speed,
                "seed": seed,
            },
            count=1,
            measure=measure,
        )

    rows = session.measure([unit(seed) for seed in range(seeds)])
    session.finish(rows, targets_table(rows), _figure(rows))
    return rows


def _measure(
    settings: Settings,
    options: Options,
    world: SimulatedWorld,
    *,
    preset: str,
    speed: float,
    say: Report,
) -> dict[str, Any]:
    settings = settings.with_changes(state=settings.state / "bench-live")
    folder = settings.state.with_name("bench-live-log")
    few = SimulatedWorld(
        world.settings, seed=world.seed, requests=_FEW_REQUESTS, span_ms=world.span_ms
    )
    name = f"simulated-{preset}"
    write_offline(few, folder, name, policy="random", progress=lambda _done, _all: None)
    declaration = folder / DECLARATION_FILE
    write_declaration(declaration, world.settings, name, speed)
    settings = with_log_file(
        settings.with_changes(log={"file": str(declaration)}, kafka={"timestamps": "broker"})
    )
    log = find_log(str(declaration), None)
    names = ("clock", "job", "writer", "trainer", "server")
    with (
        Loop(settings, log, options.console, names=names, command="headrace bench live") as loop,
        FreshnessProbe(settings) as probe,
    ):
        clicks = 0

        def follow(event: SentEvent, event_id: str, now: int) -> None:
            nonlocal clicks
            clicks += event.action == "click"
            if event.action == "click" and clicks % _FOLLOW == 0:
                probe.follow(
                    Click(event_id=event_id, user_id=event.user_id, item_id=event.item_id, ts=now)
                )

        def progress(done: float, line: str) -> None:
            loop.watch()
            say(line, done)

        run = run_system(
            world,
            server_url(settings),
            speed=speed,
            compare=0.2,
            progress=progress,
            on_action=follow,
        )
        say("the last windows pass", 1.0)
        attribution_ms = settings.log.attribution_ms
        _settle(loop, attribution_ms)
        report = loop.trainer_report()
        labelling = frozenset(
            kind for kind, action in world.settings.actions.items() if action.label != "none"
        )
        attribution = check_attribution(
            run.traffic.sent,
            sample_records(settings),
            labelling=labelling,
            attribution_ms=attribution_ms,
        )
        sums = count_events(settings).to_json()
    recorded = report.models.get("online", {}).get("all", {})
    served_auc = run.report["shown"]["served_auc"]
    return {
        "attribution": attribution.to_json(),
        "freshness_ms": probe.summary(),
        "recorded": recorded,
        "served_auc": served_auc,
        "best_auc": run.report["shown"]["best_auc"],
        "auc_recorded_minus_served": _difference(recorded.get("auc"), served_auc),
        "regret": _regrets(run),
        "events": sums,
        "samples": {name: getattr(report.samples, name) for name in ("seen", "learnt")},
        "peak_memory_bytes": loop.peak_bytes,
        "run": run.report,
    }


def _settle(loop: Loop, attribution_ms: int) -> None:
    """Wait until every window has passed and everything is learnt that will be."""
    end = time.monotonic() + attribution_ms / 1000
    loop.wait_until(
        "the last attribution window", lambda: time.monotonic() > end, attribution_ms / 1000 + 5
    )
    before = -1

    def still() -> bool:
        nonlocal before
        seen = loop.trainer_report().samples.seen
        done = seen == before and not loop.writer_lag()
        before = seen
        time.sleep(2.0)
        return done

    loop.wait_until("the trainer has read everything", still, _SETTLED_S)


def _regrets(run: SystemRun) -> dict[str, float]:
    """Mean regret of each channel on the same requests, in the later half of the run."""
    return {
        name: found["regret"]
        for name, found in run.report["compared_late"].get("channels", {}).items()
        if found["rankings"]
    }


def _difference(a: float | int | None, b: float | None) -> float | None:
    return None if a is None or b is None else float(a) - b


def targets_table(rows: list[Row]) -> Table:
    """Floor, goal and what was found in each run."""
    table = Table(title="live traffic, to reach")
    for name in ("what", "floor", "goal", "found", ""):
        table.add_column(name, justify="left" if name == "what" else "right")
    for target in TARGETS:
        found = [target.found(row.figures) for row in rows]
        texts = ["-" if value is None else f"{value:,.4g}" for value in found]
        kept = all(value is not None and target.holds(value) for value in found)
        mark = "[green]ok[/]" if kept else "[red]no[/]"
        table.add_row(target.what, target.floor, target.goal, ", ".join(texts), mark)
    return table


def _figure(rows: list[Row]) -> Figure:
    """How much of what could be gained over a random order was gained, over time."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for row in rows:
        gained = [part.get("gained") for part in row.figures["run"]["over_time"]]
        panel.plot(range(1, len(gained) + 1), gained, marker="o", label=f"seed {row.key['seed']}")
    panel.set(xlabel="tenth of the run", ylabel="gained: 0 random, 1 the best order")
    panel.grid(alpha=0.3)
    panel.legend()
    return figure
