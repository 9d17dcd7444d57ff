"""The targets of the live bench: each fault misses its own target and no other."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from bench.results import Row
from bench.simulator.live import TARGETS, targets_table

GOOD: dict[str, Any] = {
    "attribution": {
        "lost_impressions": 0,
        "lost_actions": 0,
        "extra_impressions": 0,
        "wrong_actions": 0,
    },
    "freshness_ms": {"feature": {"p95": 300.0}, "vector": {"p95": 600.0}},
    "recorded": {"calibration": 1.01},
    "auc_recorded_minus_served": 0.0005,
    "regret": {"champion": 0.4, "frozen": 1.0},
}
FAULTS: list[dict[str, Any]] = [
    {"attribution": {**GOOD["attribution"], "lost_actions": 1}},
    {"attribution": {**GOOD["attribution"], "wrong_actions": 1}},
    {"freshness_ms": {"feature": {"p95": 701.0}, "vector": {"p95": 600.0}}},
    {"freshness_ms": {"feature": {"p95": 300.0}, "vector": {"p95": None}}},
    {"recorded": {"calibration": 11.0}},
    {"auc_recorded_minus_served": 0.02},
    {"regret": {"champion": 1.1, "frozen": 1.0}},
]


def missed(*figures: dict[str, Any]) -> list[str]:
    console = Console(width=160)
    with console.capture() as captured:
        console.print(targets_table([Row("live", {"seed": 0}, one) for one in figures]))
    lines = captured.get().splitlines()
    found = []
    for target in TARGETS:
        [line] = [line for line in lines if target.what in line]
        if line.split("│")[-2].strip() == "no":
            found.append(target.what)
    return found


def test_a_good_run_reaches_all() -> None:
    assert missed(GOOD, GOOD) == []


@pytest.mark.parametrize(("number", "fault"), list(enumerate(FAULTS)))
def test_a_fault_in_one_of_two_runs_misses_its_target(number: int, fault: dict[str, Any]) -> None:
    assert missed(GOOD, GOOD | fault) == [TARGETS[number].what]


def test_what_was_not_measured_is_not_reached() -> None:
    assert missed(GOOD | {"recorded": {}, "regret": {}}) == [TARGETS[4].what, TARGETS[6].what]
