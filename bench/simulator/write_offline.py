"""``headrace simulate --offline``: write a log and tell what is true of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bench.simulator.draws import Floats
from bench.simulator.log_files import SimulatedLogWriter
from bench.simulator.policy_log import Policy, simulate_log
from bench.simulator.truth import truth_of_shown
from bench.simulator.world import SimulatedWorld

Report = Callable[[int, int], None]


def write_offline(
    world: SimulatedWorld, folder: Path, policy: Policy, progress: Report
) -> dict[str, Any]:
    """Write all requests of a world, ranked by a policy; a report in a form that JSON can hold.

    Args:
        world: whose requests.
        folder: of the files (:mod:`bench.simulator.log_files`).
        policy: what ranks.
        progress: is told requests done and in all.

    Raises:
        LogFileError: the folder cannot be written.
    """
    began = time.monotonic()
    probability: list[Floats] = []
    seen: list[Floats] = []
    clicked = []
    events = done = 0
    with SimulatedLogWriter(folder, world) as writer:
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
