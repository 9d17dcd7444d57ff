"""The trainer as a process: what it tells, how it ends, and that no death changes its bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from inttower.publish.store import ModelStore
from settings.settings import Settings
from tests.trainer import synthetic
from tests.trainer.build import SMALL, WARMUP
from tests.trainer.processes import (
    TrainerProcess,
    feed,
    learnt_bytes,
    make_topics,
    newest,
    torn,
    until,
)
from trainer.intake import IntakeFacts
from trainer.learning.model_set import MODELS
from trainer.trainer_loop import _Meta
from trainer.trainer_report import Counts, TrainerReport, read_report, report_path

COUNT = 1_000
VALUES = synthetic.records(synthetic.samples(COUNT))
CLICKS = len(VALUES) - COUNT
TRAINER = {**SMALL, "preset": "state"}  # everything that has state
# wall time decides when it writes and sends; here as often as can be
HASTY = {**TRAINER, "checkpoint_every_s": 0.01, "version_every_s": 0.2, "delta_every_ms": 10}
END = 2 * synthetic.START_MS


def facts(settings: Settings) -> IntakeFacts:
    found = newest(settings)
    assert found is not None
    return msgspec.json.decode(found.meta, type=_Meta).intake


def metrics_of(settings: Settings) -> dict[str, float]:
    """What /metrics shows, by name and labels; nothing while nobody answers."""
    url = f"http://127.0.0.1:{settings.trainer.metrics_port}/metrics"
    try:
        with urllib.request.urlopen(url) as answer:
            text = answer.read().decode()
    except urllib.error.URLError:
        return {}
    return {
        " ".join((sample.name, *sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@dataclass
class Undisturbed:
    """A run of ``python -m trainer`` that nothing disturbed, and what it left."""

    settings: Settings
    records: int
    code: int
    errors: str
    metrics: dict[str, float]
    report: TrainerReport
    learnt: dict[str, str]


@pytest.fixture(scope="module")
def undisturbed(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    settings = broker.with_changes(
        kafka={"topic_prefix": "trainer."},
        trainer={**TRAINER, "checkpoint_every_s": 1_000.0},
        state=tmp_path_factory.mktemp("trainer"),
    )
    make_topics(settings)
    log = synthetic.partition_log(VALUES, every=50)
    feed(settings, log)
    path = settings.state / "settings.json"
    path.write_bytes(settings.to_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", str(path)], stderr=subprocess.PIPE, text=True
    )
    shown: dict[str, float] = {}

    def done() -> bool:
        assert process.poll() is None
        shown.update(metrics_of(settings))
        return shown.get("headrace_trainer_samples_learnt") == COUNT

    try:
        until(done, "all samples are learnt", seconds=120, every=0.2)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    report = read_report(report_path(settings.state))
    assert report is not None
    learnt = learnt_bytes(settings)
    return Undisturbed(settings, len(log), process.returncode, errors, shown, report, learnt)


def test_it_learns_what_is_on_the_topic_and_tells_it(undisturbed: Undisturbed) -> None:
    report, warmup = undisturbed.report, WARMUP
    queued = (COUNT - warmup) - SMALL["batch_samples"] * report.batches
    assert 0 <= queued == report.samples.queued < SMALL["batch_samples"]
    # what is queued is open
    assert report.samples == whole(queued, undisturbed.report.samples.open)
    assert queued <= report.samples.open < COUNT
    assert report.offsets == {0: undisturbed.records}
    assert (report.lag, report.watermark) == (0, END)
    assert report.newest_at == max(map(synthetic.at, VALUES)) // 1000 * 1000
    assert report.evaluated == COUNT - warmup
    assert report.ids == {"user": 40, "item": 60}
    assert report.models.keys() == set(MODELS)
    for found in report.models.values():
        assert found["all"] == found["window"]  # it is wider than all there is
        assert found["all"]["rows"] == COUNT - warmup
    assert {c: p.version for c, p in report.published.items()} == {
        "champion": "000001",
        "frozen": "000001",
    }
    assert all(
        report.seconds[name] > 0
        for name in ("read", "warmup_fit", "learn", "publish", "checkpoint", "report")
    )


def test_metrics_show_what_the_report_tells(undisturbed: Undisturbed) -> None:
    report, shown = undisturbed.report, undisturbed.metrics
    p = "headrace_trainer_"
    assert shown[f"{p}samples_seen"] == COUNT
    assert shown[f"{p}samples_waiting"] == shown[f"{p}samples_repeated"] == 0
    assert (shown[f"{p}warm"], shown[f"{p}lag_records"]) == (1, 0)
    assert shown[f"{p}batches"] == shown[f"{p}batch_seconds_count"] == report.batches
    assert shown[f"{p}batch_seconds_sum"] > 0
    assert shown[f"{p}loss"] == report.loss
    assert shown[f"{p}watermark_seconds"] == END / 1000
    assert shown[f"{p}ids user"] == report.ids["user"]
    assert shown[f"{p}versions_total champion"] == shown[f"{p}versions_total frozen"] == 1
    assert shown[f"{p}deltas_total champion"] >= 1
    assert shown[f"{p}delta_rows_total user"] >= 40
    assert shown[f"{p}checkpoints_total written"] == 1
    for name in ("auc", "logloss", "calibration", "gauc"):
        for model in MODELS:
            assert shown[f"{p}{name} {model} window"] == pytest.approx(
                report.models[model]["window"][name]
            )


def test_sigterm_ends_it_with_a_checkpoint(undisturbed: Undisturbed) -> None:
    assert undisturbed.code == 0
    assert "Traceback" not in undisturbed.errors
    assert undisturbed.report.phase == "stopped"
    # one behind the warm-up, one at the end
    last = newest(undisturbed.settings)
    assert last is not None
    assert last.number == undisturbed.report.checkpoint == 2
    assert facts(undisturbed.settings) == IntakeFacts(
        offsets={0: undisturbed.records},
        watermarks={0: END},
        released=END,
        seen=COUNT,
        actions=CLICKS,
        refused=0,
        repeated=0,
        behind=0,
    )


def whole(queued: int, still_open: int) -> Counts:
    """What a trainer counts that has learnt all."""
    return Counts(
        seen=COUNT,
        learnt=COUNT,
        warmup=WARMUP,
        actions=CLICKS,
        queued=queued,
        open=still_open,
    )


def assert_learnt_once(settings: Settings, undisturbed: Undisturbed) -> None:
    found = facts(settings)
    assert (found.seen, found.repeated, found.behind) == (COUNT, 0, 0)
    assert learnt_bytes(settings) == undisturbed.learnt


def kill_while_it_warms_up(trainer: TrainerProcess, log: list[bytes], rng: random.Random) -> None:
    """While it collects, while it fits (by both signals), and about its first checkpoint."""
    feed(trainer.settings, log[:300])
    trainer.start()
    until(lambda: trainer.report.samples.waiting > 100, "samples are collected")
    trainer.kill()
    feed(trainer.settings, log[300:])
    trainer.start()
    trainer.says("warm-up: fitting")
    time.sleep(rng.uniform(0, 0.2))
    trainer.kill()
    trainer.start()
    trainer.says("warm-up: fitting")
    trainer.stop()
    assert trainer.report.phase == "stopped"
    trainer.start()
    trainer.says("warm-up: done")
    time.sleep(rng.uniform(0, 0.1))
    trainer.kill()


def kill_while_it_saves(trainer: TrainerProcess, log: list[bytes]) -> bool:
    """In the midst of a checkpoint, behind a whole one; whether it was really torn."""
    trainer.start()
    trainer.says(" on cpu, ")  # it has cleared away what the one before left
    until(lambda: newest(trainer.settings), "there is a checkpoint", every=0.002)
    feed(trainer.settings, log)
    until(lambda: torn(trainer.settings), "a checkpoint is being written", every=0.001)
    trainer.kill()
    return bool(torn(trainer.settings))


def kill_anywhere(trainer: TrainerProcess, log: list[bytes], rng: random.Random) -> int:
    """Once it has gone on from a checkpoint and come to another; what the first had learnt."""
    trainer.start()
    restored = trainer.goes_on()
    feed(trainer.settings, log)
    trainer.learns(restored + 1)
    learnt_ms = trainer.report.written_ms
    until(lambda: (trainer.report.checkpoint_ms or 0) > learnt_ms, "a checkpoint of it")
    time.sleep(rng.uniform(0, 0.1))
    trainer.kill()
    return restored


def test_no_kill_changes_what_is_learnt(cluster: Settings, undisturbed: Undisturbed) -> None:
    settings = cluster.with_changes(trainer=HASTY)
    rng = random.Random(time.time_ns())  # no kill at any time may matter
    make_topics(settings)
    log = synthetic.partition_log(VALUES, every=25, seed=1)
    parts = [log[at : at + 80] for at in range(700, len(log), 80)]
    with TrainerProcess(settings) as trainer:
        kill_while_it_warms_up(trainer, log[:700], rng)
        while not kill_while_it_saves(trainer, parts.pop(0)):
            pass
        restored = [kill_anywhere(trainer, parts.pop(0), rng) for _ in range(3)]
        trainer.start()
        restored.append(trainer.goes_on())
        assert WARMUP <= restored[0] < restored[1] < restored[2] < restored[3] < COUNT
        for part in parts:
            feed(settings, part)
        trainer.learns(COUNT)
        report = trainer.report
        trainer.stop()
    assert report.samples == undisturbed.report.samples
    assert_learnt_once(settings, undisturbed)
    # the versions, too, are those of one run
    assert ModelStore(settings.store_url).versions("frozen") == ["000001"]


def test_partitions_and_their_interleaving_change_nothing(
    cluster: Settings, undisturbed: Undisturbed
) -> None:
    settings = cluster.with_changes(trainer=HASTY, flink={"parallelism": 2})
    make_topics(settings)
    halves = [VALUES[:0], VALUES[:0]]
    for place, value in enumerate(VALUES):
        halves[place % 3 // 2].append(value)
    big = synthetic.partition_log(halves[0], every=7, seed=2)
    small = synthetic.partition_log(halves[1], every=90, seed=3)
    with TrainerProcess(settings) as trainer:
        trainer.start()
        feed(settings, big, partition=0)
        feed(settings, small[:300], partition=1)
        # one has told all, the other has not: what waits for it outlives a restart
        trainer.learns(WARMUP)
        until(lambda: trainer.report.samples.waiting > 100, "samples wait")
        trainer.stop()
        assert facts(settings).offsets == {0: len(big), 1: 300}
        trainer.start()
        feed(settings, small[300:], partition=1)
        trainer.learns(COUNT)
        trainer.stop()
    assert_learnt_once(settings, undisturbed)


def test_a_second_trainer_on_one_state_folder_is_refused(cluster: Settings) -> None:
    make_topics(cluster)
    with TrainerProcess(cluster) as first, TrainerProcess(cluster, "second") as second:
        first.start()
        first.says(" on cpu, ")
        second.start()
        assert second.wait() == 1
        assert f"another trainer is running on {cluster.state / 'trainer'}" in second.log
        assert "stop it first, or give this one another state folder" in second.log
        assert "Traceback" not in second.log
        first.stop()


def test_records_that_cannot_be_learnt_from_are_set_aside_and_the_rest_is_learnt(
    cluster: Settings, undisturbed: Undisturbed
) -> None:
    settings = cluster.with_changes(trainer=HASTY, flink={"parallelism": 2})
    make_topics(settings)
    foreign = msgspec.json.decode(VALUES[0])
    del foreign["features"]["user_clicks"]
    huge = VALUES[0].replace(b'"item_first_ts":0', b'"item_first_ts":%d' % 10**18)
    assert huge != VALUES[0]
    poisoned = [
        msgspec.json.encode(foreign),
        VALUES[0].replace(b'"ts":', b'"score":1e400,"ts":', 1),
        huge,
        b"\xff",
        b"{",
        synthetic.action(VALUES[0], synthetic.START_MS, weight=-1.0),
        synthetic.action(VALUES[0], synthetic.START_MS, label=2),
        b'{"watermark":null}',
    ]
    feed(settings, [*poisoned, synthetic.mark(END)], partition=1)
    feed(settings, synthetic.partition_log(VALUES, every=50))
    with TrainerProcess(settings) as trainer:
        trainer.start()
        trainer.learns(COUNT)
        trainer.stop()
        report = trainer.report
        # 1, 2, 4, 8, not each
        assert trainer.log.count("set aside") == 4
        assert "partition 1, offset 0" in trainer.log
        assert "user_clicks" in trainer.log
        assert "headrace reset, then replay" in trainer.log
        assert "Traceback" not in trainer.log
    assert report.samples.refused == len(poisoned)
    assert learnt_bytes(settings) == undisturbed.learnt
