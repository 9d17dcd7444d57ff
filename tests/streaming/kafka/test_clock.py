from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from settings.settings import Settings
from streaming.events import TimeMark
from streaming.kafka.broker import Broker
from tests.conftest import free_settings
from tests.streaming.made_up import read_events


def start(settings: Settings, folder: Path) -> subprocess.Popen[bytes]:
    file = folder / "settings.json"
    file.write_bytes(settings.to_json())
    return subprocess.Popen([sys.executable, "-m", "streaming.kafka.clock", str(file)])


def marks(settings: Settings) -> list[list[int]]:
    return [
        [event.time_mark for event in sequence if isinstance(event, TimeMark)]
        for sequence in read_events(settings).values()
    ]


def test_marks_ten_times_a_second_in_every_partition_through_a_broker_crash(
    tmp_path: Path,
) -> None:
    settings = free_settings(tmp_path)
    broker = Broker(settings)
    broker.start()
    process = start(settings, tmp_path)
    try:
        began = time.time()
        while min(map(len, marks(settings) or [[]])) < 20:
            assert time.time() - began < 60
            time.sleep(0.2)
        broker.kill()
        time.sleep(1)
        broker.start()
        back = time.time()
        while min(sequence[-1] for sequence in marks(settings)) < back * 1000:
            assert time.time() - back < 60, "no mark since the broker came back"
            time.sleep(0.2)
        url = f"http://127.0.0.1:{settings.clock_metrics_port}/metrics"
        with urllib.request.urlopen(url) as answer:
            assert b"headrace_clock_marks_total" in answer.read()
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0
        found = marks(settings)
    finally:
        process.kill()
        process.wait()
        broker.stop()
    assert len(found) == 2 * settings.kafka.partitions
    for sequence in found:
        assert sequence == sorted(sequence)
        gaps = [after - before for before, after in itertools.pairwise(sequence)]
        assert sorted(gaps)[len(gaps) // 2] < 300
        assert abs(sequence[-1] / 1000 - time.time()) < 30
