"""The job on a real MiniCluster: features as of each impression, and each sample once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from features.declaration import Entity
from features.log_arrays import LogArrays, load
from features.logs.movielens_features import MOVIELENS
from features.offline import OfflineFeatures
from features.samples import Sample
from settings.errors import JobError
from settings.settings import Settings
from streaming.job.flink_checkpoints import newest_checkpoint, prune_checkpoints
from streaming.job.flink_job import check_start, statements
from streaming.kafka.client import create_topics
from streaming.kafka.topics import SAMPLES
from streaming.kafka.writer import Writer
from streaming.logs import EventLog
from streaming.replay.replayer import Replayer
from tests.streaming.job_process import JobProcess, samples, until
from tests.streaming.made_up import made_up_log

# 55 minutes: events leave the window of a sitting
LOG = made_up_log(2_000, pace=5)


def independent(log: EventLog) -> dict[tuple[str, str], tuple[int, int, tuple[Any, ...]]]:
    """Time, label and features of each pair of user and item, computed without Flink or Kafka."""
    arrays = load(log, MOVIELENS)
    history, shown = OfflineFeatures(MOVIELENS, arrays), arrays.impressions
    columns: dict[str, list[Any]] = {}
    sides: tuple[tuple[Entity, Any], ...] = (("user", shown.users), ("item", shown.items))
    for entity, codes in sides:
        found = history.values(entity, codes, shown.ts)
        for feature, value in zip(MOVIELENS.of_entity(entity), found, strict=True):
            columns[feature.name] = _plain(value, arrays)
    made = {}
    for row in range(len(arrays)):
        pair = arrays.user_ids[shown.users[row]], arrays.item_ids[shown.items[row]]
        features = tuple(columns[f.name][row] for f in MOVIELENS.streaming)
        made[pair] = (int(shown.ts[row]), int(arrays.labels[row]), features)
    return made


def _plain(value: Any, arrays: LogArrays) -> list[Any]:
    if value.ndim == 1:
        return list(value.tolist())
    return [tuple(arrays.item_ids[code] for code in row if code >= 0) for row in value]


def as_compared(found: list[Sample]) -> dict[tuple[str, str], tuple[int, int, tuple[Any, ...]]]:
    made = {}
    for sample in found:
        features = tuple(
            tuple(value) if isinstance(value, tuple) else value
            for value in (getattr(sample.features, f.name) for f in MOVIELENS.streaming)
        )
        made[sample.user_id, sample.item_id] = (sample.ts, sample.label, features)
    return made


@pytest.mark.timeout(240)
def test_killed_and_stopped_on_the_way_each_sample_comes_once_with_the_right_features(
    cluster: Settings,
) -> None:
    create_topics(cluster)
    half = LOG.index_at(int(np.mean(LOG.span)))
    with JobProcess(cluster) as job:
        Replayer(cluster, LOG, stop=half).run()
        until(lambda: newest_checkpoint(_checkpoints(cluster)) is not None, 60, "a checkpoint")
        job.kill()
        job.start()
        Replayer(cluster, LOG).run()
        until(lambda: len(samples(cluster)) > half // 2, 60, "samples")
        until(job.runs, 60, "the job runs")
        assert niceness(job) == {cluster.flink.niceness}
        # a clean stop: it goes on from the savepoint
        assert job.stop() == 0
        assert "/savepoint-" in (newest_checkpoint(_checkpoints(cluster)) or "")
        job.start()
        sums = job.settled()
    impressions = sum(1 for event in LOG.events() if not hasattr(event, "event_id"))
    assert sums.balances
    assert sums.impressions["samples"] == sums.impressions["produced"] == impressions
    assert sums.clicks["joined"] == sums.clicks["produced"] == LOG.count - impressions
    found = samples(cluster)
    assert len(found) == len({s.request_id for s in found}) == impressions
    assert as_compared(found) == independent(LOG)


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


@pytest.mark.timeout(240)
def test_another_speed_parallelism_and_state_backend_give_the_same_samples(
    cluster: Settings,
) -> None:
    twofold = cluster.with_changes(flink={"parallelism": 2, "state_backend": "rocksdb"})
    create_topics(twofold)
    log = made_up_log(600, pace=5)
    span_s = (log.span[1] - log.span[0]) / 1000
    with JobProcess(twofold) as job:
        Replayer(twofold, log, speed=span_s / 5).run()
        sums = job.settled()
    assert sums.balances
    assert as_compared(samples(twofold)) == independent(log)


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
