"""The writer and the catalogue on a real broker."""

from __future__ import annotations

import gc
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from features.catalogue import Catalogue, CatalogueReader
from features.feast_repo import apply_repository, folder
from features.feature_writer import FeatureWriter
from features.logs.movielens_features import MOVIELENS
from features.samples import FeatureRow
from features.user_lookup import OnlineStore
from settings.errors import BrokerError
from settings.settings import Settings
from streaming.kafka.broker import Broker
from streaming.kafka.client import create_topics
from streaming.kafka.writer import Writer

T = 978_300_760_123
Row = Callable[..., bytes]


@contextmanager
def _running(settings: Settings) -> Iterator[FeatureWriter]:
    apply_repository(settings, MOVIELENS)
    writer = FeatureWriter(settings, MOVIELENS)
    thread = threading.Thread(target=writer.run)
    thread.start()
    try:
        yield writer
    finally:
        writer.stop()
        thread.join(20)
    assert not thread.is_alive()


def _produce(settings: Settings, topic: str, *records: tuple[str, bytes | None]) -> None:
    with Writer(settings, bulk=False) as out:
        for key, value in records:
            out.send(settings.topic(topic), 0, key.encode(), value)


def _until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _ts(row: FeatureRow | None) -> int:
    return 0 if row is None else row.ts


def test_the_newest_row_of_each_key_arrives_and_a_restart_goes_on(
    cluster: Settings, row: Row
) -> None:
    create_topics(cluster)
    rows = [(str(i % 50), row("user", str(i % 50), T + i)) for i in range(2_000)]
    _produce(cluster, "features.user", *rows)
    online = OnlineStore(cluster, MOVIELENS)
    with _running(cluster):
        _until(lambda: _ts(online.read_user("49")) == T + 1_999)
        _produce(cluster, "features.item", ("9", row("item", "9", T)))
        _until(lambda: _ts(online.read_item("9")) == T)
    assert [_ts(online.read_user(str(i))) for i in range(50)] == [T + 1_950 + i for i in range(50)]
    # after a restart the topic is not read again, and what the job repeats does no harm
    _produce(cluster, "features.user", ("49", row("user", "49", T)), ("x", row("user", "x", T)))
    # rows that the store cannot hold are set aside, and the writer goes on
    impossible = [row("user", "p", time) for time in (-1, 10**16, 10**400)]
    _produce(
        cluster, "features.user", *((str(k), value) for k, value in enumerate([b"{", *impossible]))
    )
    _produce(cluster, "features.user", ("", row("user", "", T)))
    with _running(cluster):
        _until(lambda: _ts(online.read_user("x")) == T)
    assert _ts(online.read_user("49")) == T + 1_999
    assert online.read_user("p") is None


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_it_survives_a_broker_that_dies(
    tmp_path: Path, row: Row, unused_port: Callable[[], int]
) -> None:
    broker_settings = Settings(state=tmp_path).with_changes(
        kafka={
            "bootstrap": f"127.0.0.1:{unused_port()}",
            "controller_port": unused_port(),
            "heap_mb": 256,
        }
    )
    node = Broker(broker_settings)
    node.start()
    try:
        create_topics(broker_settings)
        _produce(broker_settings, "features.user", ("1", row("user", "1", T)))
        online = OnlineStore(broker_settings, MOVIELENS)
        with _running(broker_settings):
            _until(lambda: _ts(online.read_user("1")) == T)
            node.kill()
            time.sleep(1)
            node.start()
            _produce(broker_settings, "features.user", ("1", row("user", "1", T + 1)))
            _until(lambda: _ts(online.read_user("1")) == T + 1)
    finally:
        node.stop()
    # kafka-python leaves the sockets of its vain attempts to the collector: here, not in some test
    gc.collect()


def test_the_process_serves_metrics_and_ends_on_sigterm(cluster: Settings, row: Row) -> None:
    create_topics(cluster)
    _produce(cluster, "features.user", *[("1", row("user", "1", T + i)) for i in range(3)])
    path = cluster.state / "settings.json"
    path.write_bytes(cluster.to_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "features.feature_writer", str(path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        # what is set last, behind the counts and the rows
        _until(lambda: 'headrace_writer_lag_records{entity="user"} 0.0' in _metrics(cluster), 200)
        _until(lambda: _newest(cluster) == (T + 2) / 1000, 200)
        metrics = _metrics(cluster)
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    # kafka-python may log that a socket was closed under its own waiting: no code of ours in that
    assert "features/feature_writer.py" not in errors, errors
    assert errors.rstrip().endswith("stopped")
    assert 'headrace_writer_records_total{entity="user"} 3.0' in metrics
    # Feast applied the repository in a process of its own, and would have cost this one 600 MB
    memory = re.search(r"^process_resident_memory_bytes (\S+)", metrics, re.MULTILINE)
    assert memory is not None
    assert float(memory[1]) < 350e6
    with sqlite3.connect(folder(cluster) / "online.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def _newest(settings: Settings) -> float | None:
    pattern = r'headrace_writer_newest_event_seconds{entity="user"} (\S+)'
    found = re.search(pattern, _metrics(settings))
    return None if found is None else float(found[1])


def _metrics(settings: Settings) -> str:
    url = f"http://127.0.0.1:{settings.writer_metrics_port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return str(response.read().decode())
    except OSError:
        return ""


def test_topics_that_are_missing_are_named(cluster: Settings) -> None:
    with pytest.raises(BrokerError, match=r"features\.user does not exist"):
        FeatureWriter(cluster, MOVIELENS)
    with pytest.raises(BrokerError, match="users does not exist"):
        CatalogueReader(cluster, Catalogue(MOVIELENS))
