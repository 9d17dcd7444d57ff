"""``headrace simulate --offline``: writes a log and reports its truth."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.simulator.draws import Floats
from bench.simulator.log_files import SimulatedLogWriter
from bench.simulator.policy_log import Policy, simulate_log
from bench.simulator.truth import truth_of_shown
from bench.simulator.world import SimulatedWorld

Report = Callable[[int, int], None]


def write_offline(
    world: SimulatedWorld, folder: Path, name: str, *, policy: Policy, progress: Report
) -> dict[str, Any]:
    """Write all requests of a world, ranked by a policy; a report in a form that JSON can hold.

    Args:
        world: whose requests.
        folder: of the files (:mod:`bench.simulator.log_files`).
        name: of the log.
        policy: what ranks.
        progress: called with requests done and in all.

    Raises:
        LogFileError: the folder cannot be written.
    """
    began = time.monotonic()
    probability: list[Floats] = []
    seen: list[Floats] = []
    clicked = []
    events = done = 0
    with SimulatedLogWriter(folder, world, name) as writer:
        for chunk in simulate_log(world, policy):
            writer.write(chunk)
            probability.append(chunk.shown.probability.ravel())
            seen.append(chunk.shown.seen_probability.ravel())
            clicked.append(chunk.shown.clicked.ravel())
            events += chunk.events
            done += len(chunk.requests)
            progress(done, len(world))
    seconds = time.monotonic() - began
    whole = np.concatenate(probability)
    truth = truth_of_shown(
        whole, np.concatenate(seen), np.concatenate(clicked), np.full(len(whole), np.nan)
    )
    return {
        "folder": str(folder),
        "policy": policy,
        "seed": world.seed,
        "requests": len(world),
        "days": world.span_ms / 86_400_000,
        "written": asdict(writer.written),
        "seconds": round(seconds, 2),
        "events_per_second": round(events / seconds),
        "truth": {name: value for name, value in asdict(truth).items() if value is not None},
        "click_rate": truth.clicks / truth.shown,
    }


def show_offline(report: dict[str, Any], out: Console) -> None:
    """Print it."""
    written, truth = report["written"], report["truth"]
    table = Table(title=f"a simulated log, seed {report['seed']}, in {report['folder']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    rows = {
        "impressions written": f"{written['impressions']:,}",
        "actions written": f"{written['actions']:,}",
        "of these a second time": f"{written['repeated']:,}",
        "lost on the way": f"{written['lost']:,}",
        "clicks an impression": f"{report['click_rate']:.4f}",
        "best possible AUC": _figure(truth.get("best_auc")),
        "the same without the position": _figure(truth.get("best_auc_unplaced")),
        "events/s": f"{report['events_per_second']:,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    out.print(table)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
