"""The demo's cuts and settings, and what status says of the channels; no part is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from deploy.local.loop import Loop
from headrace.demo import ReportPart, demo_settings
from headrace.status import served
from settings.errors import ConfigurationError
from settings.settings import Settings
from tests.streaming.made_up import made_up_log
from trainer.trainer_report import Counts, Phase, TrainerReport

LOG = made_up_log(2_000)


@pytest.mark.parametrize("sample", [1.0, 0.6])
def test_the_stretch_lies_at_the_end_of_what_is_read(sample: float) -> None:
    part = ReportPart.of(LOG, sample=sample, ranked=50)
    assert part.stop == pytest.approx(LOG.count * sample, abs=10)
    assert 0 < part.warmup < part.stretch < part.stop <= LOG.count
    # no event of the stretch has the time of one before it
    before, first = LOG.events(part.stretch - 1, part.stretch + 1)
    assert before.ts < first.ts


def test_a_stretch_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"--ranked 500 .* 1,05[0-9] events"):
        ReportPart.of(LOG, sample=1050.5 / LOG.count, ranked=500)


@pytest.mark.parametrize(("count", "quick"), [(1_000, True), (1_000_000, False)])
def test_only_a_short_run_compiles_for_a_quick_start(count: int, quick: bool) -> None:
    settings = demo_settings(Settings(), LOG, count=count, warmup_until_ms=1, ranked=10)
    assert ("-XX:TieredStopAtLevel=1" in settings.flink.jvm_options) == quick
    assert settings.trainer.evaluation_window == 10


def test_a_wait_for_samples_ends_with_an_open_batch_and_not_in_a_fit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def report(written_ms: int, phase: Phase, learnt: int, waiting: int) -> TrainerReport:
        counts = Counts(learnt=learnt, waiting=waiting)
        return TrainerReport(written_ms=written_ms, phase=phase, samples=counts)

    reports = [
        *(report(1, "warmup", 0, 100), report(2, "warmup", 0, 100)),  # fits: nothing moves
        *(report(3, "stream", 60, 40), report(3, "stream", 60, 40)),  # the same report again
        *(report(4, "stream", 95, 5), report(5, "stream", 95, 5)),  # an open batch
    ]
    shown = iter(reports)
    loop = Loop(Settings(state=tmp_path), LOG, Console(quiet=True))
    monkeypatch.setattr(loop, "trainer_report", lambda: next(shown))
    loop.wait_until_learnt(100)
    assert next(shown, None) is None


def test_status_tells_what_a_channel_serves_and_what_it_refused() -> None:
    holds: dict[str, Any] = {"version": "7", "delta": -1, "created_ms": 0, "items": 1, "users": 1}
    refused = [{"what": "version 8", "detail": "item_vectors: not finite [/bold]"}]
    assert served({"serves": None, "refused": []}, now=1.0) == "nothing yet"
    channel = {"serves": {**holds, "delta_created_ms": None}, "refused": refused}
    assert served(channel, now=60.0) == (
        "version 7, 60 s old; no delta on it; 1 items, 1 users;"
        " 1 refused, the last: version 8: item_vectors: not finite [/bold]"
    )
