"""The job on a real MiniCluster: features as of each impression, and each sample once."""

from __future__ import annotations

from base64 import b64decode
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from features.logs.movielens_features import MOVIELENS
from features.samples import Action
from settings.errors import JobError
from settings.settings import Settings
from streaming.job.flink_checkpoints import newest_checkpoint, prune_checkpoints
from streaming.job.flink_job import check_start, statements
from streaming.kafka.client import create_topics
from streaming.kafka.topics import SAMPLES
from streaming.kafka.writer import Writer
from streaming.replay.replayer import Replayer
from tests.streaming.expected_job import Arrived, Expected, expected_of
from tests.streaming.job_process import JobProcess, dead_letters, samples, until
from tests.streaming.live_traffic import arrived, live_settings, mark_the_end, send, traffic
from tests.streaming.made_up import made_up_log

# 55 minutes: events leave the window of a sitting
LOG = made_up_log(2_000, pace=5)


def compare(settings: Settings, arrived: list[Arrived]) -> None:
    """All that the job wrote is what its rules say of these records."""
    wanted = expected_of(arrived, MOVIELENS, settings)
    found = Expected()
    for sample in samples(settings):
        if isinstance(sample, Action):
            assert sample.click_at not in found.actions
            found.actions[sample.click_at] = (
                sample.action_at,
                sample.request_id,
                sample.user_id,
                sample.item_id,
                sample.ts,
                sample.action,
                sample.action_ts,
                sample.label,
                sample.weight,
                sample.value,
                sample.impression_at,
            )
        else:
            assert sample.impression_at not in found.shown
            found.shown[sample.impression_at] = (
                sample.shown_at,
                sample.request_id,
                sample.user_id,
                sample.item_id,
                sample.ts,
                sample.position,
                sample.experiment,
                sample.variant,
                sample.model,
                sample.version,
                sample.score,
                sample.propensity,
                sample.context,
                tuple(
                    tuple(value) if isinstance(value, tuple) else value
                    for value in (getattr(sample.features, f.name) for f in MOVIELENS.streaming)
                ),
            )
    values = {(record.topic, record.place): record.value for record in arrived}
    for letter in dead_letters(settings):
        place = (letter["topic"], (letter["partition"], letter["offset"]))
        assert place not in found.letters
        found.letters[place] = letter["reason"]
        assert b64decode(letter["value"]) == values[place]
    assert differing(found.letters, wanted.letters) == []
    assert differing(found.actions, wanted.actions) == []
    assert differing(found.shown, wanted.shown) == []


def differing(found: dict[Any, Any], wanted: dict[Any, Any]) -> list[tuple[Any, Any, Any]]:
    """The first few that are not equal."""
    keys = sorted(found.keys() | wanted.keys())
    return [
        (key, found.get(key), wanted.get(key)) for key in keys if found.get(key) != wanted.get(key)
    ][:3]


@pytest.mark.timeout(900)
def test_killed_and_stopped_on_the_way_a_replay_leaves_each_sample_once(
    cluster: Settings,
) -> None:
    create_topics(cluster)
    half = LOG.index_at(int(np.mean(LOG.span)))
    with JobProcess(cluster) as job:
        Replayer(cluster, LOG, stop=half).run()
        until(lambda: newest_checkpoint(_checkpoints(cluster)) is not None, 300, "a checkpoint")
        job.kill()
        job.start()
        Replayer(cluster, LOG).run()
        until(lambda: len(samples(cluster)) > half // 2, 300, "samples")
        until(job.runs, 200, "the job runs")
        assert niceness(job) == {cluster.flink.niceness}
        # a clean stop: it goes on from the savepoint
        assert job.stop() == 0
        assert "/savepoint-" in (newest_checkpoint(_checkpoints(cluster)) or "")
        job.start()
        sums = job.settled()
    impressions = sum(1 for event in LOG.events() if not hasattr(event, "event_id"))
    assert sums.balances
    assert sums.impressions["shown"] == sums.impressions["produced"] == impressions
    assert sums.clicks["actions"] == sums.clicks["produced"] == LOG.count - impressions
    assert sums.late["events"] == 0
    compare(cluster, arrived(cluster))


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("parallelism", "backend"), [(1, "hashmap"), (2, "rocksdb")])
def test_late_repeated_early_and_broken_events_each_cost_themselves_only(
    cluster: Settings, parallelism: int, backend: str
) -> None:
    settings = live_settings(cluster).with_changes(
        flink={"parallelism": parallelism, "state_backend": backend}
    )
    create_topics(settings)
    sent = traffic(shown=900, seed=1)
    with JobProcess(settings) as job:
        send(settings, sent[: len(sent) // 2])
        until(lambda: len(samples(settings)) > len(sent) // 8, 300, "samples")
        job.kill()
        job.start()
        send(settings, sent[len(sent) // 2 :])
        sums = job.settled(meanwhile=lambda: mark_the_end(settings, sent))
    compare(settings, arrived(settings))
    wanted = expected_of(arrived(settings), MOVIELENS, settings)
    assert sums.balances
    assert sums.clicks["features_only"] == wanted.features_only > 0
    assert sums.reasons == Counter(wanted.letters.values())
    assert {"duplicate", "unmatched", "repeated", "too_late", "unknown_action"} <= {*sums.reasons}
    assert {"malformed_json", "missing_field", "time_in_future", "wrong_type"} <= {*sums.reasons}
    assert sums.late["events"] > len(sent) // 20
    assert sums.late["p50_ms"] < sums.late["p95_ms"] <= sums.late["max_ms"]


def niceness(job: JobProcess) -> set[int]:
    """Of the JVM, and of its session where Linux shares processors out among sessions."""
    assert job.process is not None
    (jvm,) = psutil.Process(job.process.pid).children()
    found = {jvm.nice()}
    session = Path(f"/proc/{jvm.pid}/autogroup")
    if session.exists():
        found.add(int(session.read_text().rpartition(" ")[2]))
    return found


def _checkpoints(settings: Settings) -> str:
    return (settings.state.absolute() / "flink" / "checkpoints").as_uri()


def test_a_start_over_samples_without_a_checkpoint_is_refused(cluster: Settings) -> None:
    create_topics(cluster)
    check_start(cluster, None)
    with Writer(cluster, bulk=False) as writer:
        writer.send(cluster.topic(SAMPLES), 0, b"u", b"{}")
    with pytest.raises(JobError, match=r"no checkpoint .* again.*headrace reset"):
        check_start(cluster, None)
    check_start(cluster, "file:///somewhere/chk-7")


def test_the_newest_whole_checkpoint_counts(cluster: Settings) -> None:
    root = cluster.state / "flink" / "checkpoints"
    url = root.as_uri()
    assert newest_checkpoint(url) is None
    for name in ("a/chk-9", "b/chk-1"):
        (root / name).mkdir(parents=True)
        (root / name / "_metadata").write_bytes(b"")
    (root / "b" / "chk-2").mkdir()  # was not finished
    assert newest_checkpoint(url) == f"{url}/b/chk-1"
    prune_checkpoints(url, f"{url}/b/chk-1")
    assert sorted(p.name for p in root.iterdir()) == ["b"]


def test_statements_are_those_between_empty_lines() -> None:
    script = "CREATE A (\n x INT\n);\n\nEXECUTE STATEMENT SET BEGIN\nINSERT 1;\nEND;\n"
    assert len(statements(script)) == 2
