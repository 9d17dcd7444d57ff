from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from settings.errors import BrokerError, ConfigurationError
from settings.settings import Settings
from streaming.kafka import topics
from streaming.kafka.broker import Broker, address, require_free_port
from streaming.kafka.client import admin, create_topics, end_offsets
from streaming.kafka.writer import Writer
from tests.conftest import free_settings


def ends(settings: Settings) -> dict[int, int]:
    with admin(settings) as client:
        return end_offsets(client, settings.topic(topics.CLICKS))


def test_data_outlives_a_stop_a_crash_and_a_left_over(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    with Broker(settings) as broker:
        create_topics(settings)
        with Writer(settings, bulk=False) as writer:
            writer.send(topics.CLICKS, 0, b"u", b"{}")
        pid_file = broker.pid_file
        assert pid_file.read_text() == str(broker.pid)
    assert not pid_file.exists()

    crashed = Broker(settings)
    crashed.start()
    assert ends(settings)[0] == 1
    crashed.kill()
    assert pid_file.exists()

    # its starter was killed: the JVM lives on, and the next start finds and ends it
    left_over = Broker(settings)
    left_over.start()
    pid = left_over.pid
    assert pid
    with Broker(settings) as broker:
        assert ends(settings)[0] == 1
        assert broker.pid != pid
        process = psutil.pid_exists(pid) and psutil.Process(pid)
        assert not process or process.status() == psutil.STATUS_ZOMBIE
    assert left_over.exit_code() is not None


def test_a_port_in_use_is_named_with_its_holder_and_the_cure(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    host, port = address(settings)
    named = pytest.raises(BrokerError, match=rf"port {port} .* by process {os.getpid()} .*stop")
    with socket.create_server((host, port)), named:
        Broker(settings).start()
    require_free_port(host, port)


def test_a_stale_pid_file_harms_nobody(tmp_path: Path) -> None:
    from streaming.kafka.broker import stop_leftover

    pid_file = tmp_path / "broker.pid"
    for text in (str(os.getpid()), "999999999", "nonsense", ""):
        pid_file.write_text(text)
        stop_leftover(pid_file, tmp_path / "server.properties")
        assert not pid_file.exists()


@pytest.mark.parametrize("bootstrap", ["localhost", ":9092", "host:port", "host:0", "a:1,b:2:x"])
def test_an_unusable_address_is_refused(bootstrap: str) -> None:
    settings = Settings().with_changes(kafka={"bootstrap": bootstrap})
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        address(settings)


def test_a_broker_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    with Broker(settings) as broker:
        data = broker.folder / "data"
    # the folder of another node
    meta = data / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=7"))
    with pytest.raises(BrokerError, match="exited with status"):
        Broker(settings).start()


def test_as_a_process_it_serves_metrics_and_ends_on_sigterm(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    file = tmp_path / "settings.json"
    file.write_bytes(settings.to_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "streaming.kafka.broker", str(file)],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    try:
        for line in process.stderr:
            if "broker is ready on" in line:
                break
        else:
            pytest.fail("no broker")
        url = f"http://127.0.0.1:{settings.broker_metrics_port}/metrics"
        metrics = ""
        for _ in range(50):
            with urllib.request.urlopen(url) as answer:
                metrics = answer.read().decode()
            if "headrace_broker_data_bytes 0.0" not in metrics:
                break
            time.sleep(0.1)
        assert "headrace_broker_up 1.0" in metrics
        jvm = int((tmp_path / "run" / "broker.pid").read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not psutil.pid_exists(jvm)
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
