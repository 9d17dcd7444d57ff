"""Runs a simulated world against a running system, and reports."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from bench.simulator.behaviour import show
from bench.simulator.log_files import SimulatedLogWriter
from bench.simulator.policy_log import happen
from bench.simulator.simulator_driver import SimulatorDriver
from bench.simulator.simulator_report import run_report, show_report
from bench.simulator.system_client import SystemClient
from bench.simulator.traffic import DrivenTraffic, SentEvent
from bench.simulator.world import SimulatedWorld
from bench.simulator.world_settings import WorldSettings

_CHUNK = 2_000


def requests_at(settings: WorldSettings, rate: float, seconds: float) -> int:
    """How many requests give so many events a second for so long, about.

    >>> requests_at(WorldSettings(), rate=210, seconds=10)
    200
    """
    slate = settings.slate.shown
    return max(1, int(rate * seconds / (slate * (1 + settings.clicks.rate))))


@dataclass(frozen=True, slots=True)
class SystemRun:
    """A run that is over, and its report."""

    traffic: DrivenTraffic
    report: dict[str, Any]


def run_system(
    world: SimulatedWorld,
    url: str,
    *,
    speed: float,
    compare: float,
    progress: Callable[[float, str], None],
    on_action: Callable[[SentEvent, str, int], None] | None = None,
) -> SystemRun:
    """Drive a system with all requests of a world.

    Args:
        world: whose requests.
        url: of the system's server.
        speed: the world's seconds in one of ours.
        compare: part of the requests that every channel ranks.
        progress: called with the part that is done, and a line of figures.
        on_action: see :class:`~bench.simulator.simulator_driver.SimulatorDriver`.

    Raises:
        HeadraceError: no server answers, or it does not take the catalogue.
    """

    async def run() -> SystemRun:
        client = SystemClient(url)
        try:
            channels = await client.channels()
            driver = SimulatorDriver(
                world,
                client,
                speed=speed,
                compare=compare,
                compare_with=tuple(channels) if len(channels) > 1 else (),
                progress=lambda traffic, done: progress(done, _line(traffic, client)),
                on_action=on_action,
            )
            traffic = await driver.run()
        finally:
            await client.close()
        return SystemRun(traffic, run_report(world, traffic, client))

    return asyncio.run(run())


def drive(
    world: SimulatedWorld,
    url: str,
    *,
    speed: float,
    compare: float,
    name: str,
    keep: Path | None,
    out: Console,
) -> dict[str, Any]:
    """Drive a system with a progress line; print and return the report.

    Args:
        world: whose requests.
        url: of the system's server.
        speed: the world's seconds in one of ours.
        compare: part of the requests that every channel ranks.
        name: of the log that is kept.
        keep: folder for the traffic as a log; None: it is not kept.
        out: where to.

    Raises:
        HeadraceError: no server answers, or it does not take the catalogue.
    """
    with _progress(out) as bar:
        task = bar.add_task("", total=1.0)
        run = run_system(
            world,
            url,
            speed=speed,
            compare=compare,
            progress=lambda done, line: bar.update(task, completed=done, description=line),
        )
    report = {"speed": speed, "requests": len(world), **run.report}
    show_report(report, out)
    if keep is not None:
        keep_traffic(world, run.traffic, keep, name)
        out.print(f"the traffic, in the world's own time: {keep}")
    return report


def keep_traffic(world: SimulatedWorld, traffic: DrivenTraffic, folder: Path, name: str) -> None:
    """Write what was shown and done as a log, in the world's time from the run's start on.

    Raises:
        LogFileError: the folder cannot be written.
    """
    slates = sorted(traffic.slates, key=lambda slate: slate.shown_at)
    with SimulatedLogWriter(folder, world, name, traffic.clock.start_ms) as writer:
        for start in range(0, len(slates), _CHUNK):
            some = slates[start : start + _CHUNK]
            requests = world.requests.rows(np.array([slate.row for slate in some]))
            shown = show(world, requests, np.stack([slate.items for slate in some]))
            at = np.array([slate.shown_at for slate in some])
            writer.write(happen(world, requests, shown, at))


def _line(traffic: DrivenTraffic, client: SystemClient) -> str:
    """The progress line."""
    seconds = max(traffic.seconds, 1e-9)
    recent = client.rankings.milliseconds[-200:]
    p95 = f"{np.percentile(recent, 95):.0f} ms" if recent else "-"
    refused = sum(client.rankings.refused.values()) + sum(client.events.refused.values())
    return (
        f"{len(traffic.rankings) / seconds:,.0f} rankings/s (p95 {p95}),"
        f" {len(traffic.sent) / seconds:,.0f} events/s, {refused} refused"
    )


def _progress(out: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=out
    )
