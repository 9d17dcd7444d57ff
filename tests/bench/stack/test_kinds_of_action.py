"""Kinds of action mean in the benches what they mean live: labels, weights and corrections."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from bench.log_rows import LogRows
from bench.stack.stacked_stream import StackedProtocol, StackedStream
from features.generate import generated_declaration
from features.log_arrays import load
from inttower.core.batch import FloatArray, IntArray
from inttower.core.contract import Labels
from inttower.models.stacked import Stacked, StackedConfig
from streaming.logs import OwnLog
from tests.streaming.logs.small_logs import T, declare
from trainer.learning.open_rows import OpenRow

KINDS = {
    "click": {"label": 1},
    "buy": {"label": 1, "weight": 3.5},
    "hide": {"label": 0, "weight": 2.0},
    "nod": {"label": 1, "weight": 0.5},
    "look": {"label": "none"},
}
MINUTE = 60_000
SHOWN = 900


def several_kinds(folder: Path) -> OwnLog:
    """A log whose actions come up to twice the attribution window after their impressions."""
    draw = random.Random(1)
    shown, acted = ["req,user,item,time"], ["req,user,item,time,kind"]
    for n in range(SHOWN):
        user, item, ts = f"u{draw.randrange(30)}", f"i{draw.randrange(20)}", T + 10 * n
        shown.append(f"r{n},{user},{item},{ts}")
        for _ in range(draw.choice([0, 0, 1, 2, 3])):
            kind = draw.choice(list(KINDS))
            acted.append(f"r{n},{user},{item},{ts + draw.randrange(1, 1200)},{kind}")
    (folder / "acted.csv").write_text("\n".join(acted) + "\n")
    feedback = {
        "files": "acted.csv",
        "request": "req",
        "user": "user",
        "item": "item",
        "kind": "kind",
        "time": {"column": "time", "unit": "s"},
    }
    return declare(
        folder,
        "\n".join(shown) + "\n",
        click=None,
        request="req",
        log={"attribution": "10min", "feedback": feedback, "actions": KINDS},
    )


def decided_live(log: OwnLog) -> dict[str, OpenRow]:
    """What the trainer makes of each request's actions."""
    rows: dict[str, OpenRow] = {}
    taken: dict[str, set[str]] = defaultdict(set)
    shown: dict[str, int] = {}
    for event in log.events():
        request = event.request_id
        assert request is not None
        if request not in shown:
            shown[request], rows[request] = event.ts, OpenRow(0, 0, 0, "", "", "")
            continue
        name = getattr(event, "action", None) or "click"
        kind = log.actions[name]
        late = event.ts - shown[request] > log.attribution_ms
        if kind.label is not None and not late and name not in taken[request]:
            taken[request].add(name)
            rows[request].decide(kind.label, kind.weight)
    return rows


def test_labels_and_weights_are_those_of_the_trainer(tmp_path: Path) -> None:
    log = several_kinds(tmp_path)
    arrays = load(log, generated_declaration(log))
    live = list(decided_live(log).values())  # requests in order of time, as the rows
    assert arrays.labels.tolist() == [row.label for row in live]
    assert arrays.weights.tolist() == [row.weight for row in live]
    assert {(row.label, row.weight) for row in live} == {
        *((0, 1.0), (0, 2.0), (1, 0.5), (1, 1.0), (1, 3.5)),
    }
    # features count every positive kind once an impression
    assert len(arrays.clicks) == len(arrays.click_rows) > arrays.labels.sum()
    users = arrays.impressions.users[arrays.click_rows]
    assert np.array_equal(users, arrays.clicks.users)


@pytest.mark.parametrize("wait_ms", [MINUTE, 10 * MINUTE])
def test_what_is_learnt_and_corrected_adds_up_to_the_last_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wait_ms: int
) -> None:
    log = several_kinds(tmp_path)
    arrays = load(log, generated_declaration(log))
    taken: dict[int, dict[int, float]] = defaultdict(lambda: {0: 0.0, 1: 0.0})
    calls = {"corrections": 0}
    learn, correct = Stacked.learn, Stacked.correct

    def learning(
        self: Stacked, numbers: IntArray, labels: Labels, weights: FloatArray, known_at: int
    ) -> None:
        for number, y, w in zip(numbers.tolist(), labels, weights, strict=True):
            taken[number][int(y)] += float(w)
        learn(self, numbers, labels, weights, known_at)

    def correcting(
        self: Stacked,
        numbers: IntArray,
        weights: FloatArray,
        labels: Labels,
        learnt: tuple[Labels, FloatArray],
    ) -> None:
        calls["corrections"] += len(numbers)
        for at, number in enumerate(numbers.tolist()):
            taken[number][int(labels[at])] += float(weights[at])
            taken[number][int(learnt[0][at])] -= float(learnt[1][at])
        correct(self, numbers, weights, labels, learnt)

    monkeypatch.setattr(Stacked, "learn", learning)
    monkeypatch.setattr(Stacked, "correct", correcting)
    protocol = StackedProtocol(
        0.4, wait_ms=wait_ms, config=StackedConfig(states=(), epochs=1), network=False
    )
    stream = StackedStream(
        LogRows(generated_declaration(log), arrays), protocol, 0, lambda *_: None
    )
    outcome = stream.run()
    assert all(np.isfinite(z).all() for z in outcome.logits.values())
    assert (calls["corrections"] > 100) == (wait_ms < log.attribution_ms)
    # numbers rise with the rows; those of the last two calls are not due yet
    numbers = sorted(taken)
    settled = 380
    assert len(numbers) > settled
    for number, row in zip(numbers[:settled], outcome.rows[:settled], strict=True):
        label, weight = int(arrays.labels[row]), float(arrays.weights[row])
        assert taken[number] == {label: weight, 1 - label: 0.0}
