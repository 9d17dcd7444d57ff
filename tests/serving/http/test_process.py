"""The server as a process of its own, as the launcher starts it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import httpx

from settings.settings import Settings
from streaming.kafka.client import create_topics


def test_it_is_small_ranks_at_once_and_ends_on_sigterm(
    cluster: Settings, unused_port: Callable[[], int]
) -> None:
    create_topics(cluster)
    settings = cluster.with_changes(serving={"port": unused_port()})
    path = settings.state / "settings.json"
    path.write_bytes(settings.to_json())
    process = subprocess.Popen(
        [sys.executable, "-m", "serving", str(path)], stderr=subprocess.PIPE, text=True
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{settings.serving.port}") as http:
            deadline = time.monotonic() + 60
            while not _ready(http):
                assert time.monotonic() < deadline, "it did not get ready"
                time.sleep(0.05)
            body = {"user_id": "u", "candidates": ["a", "b"], "k": 1}
            answer = http.post("/v1/rank", json=body).json()
            assert (answer["cold"], len(answer["items"])) == (True, 1)
            metrics = http.get("/metrics").text
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    # uvicorn shuts down in order, and then ends by the signal that it was sent
    assert process.returncode in {0, -signal.SIGTERM}, errors
    assert "Application shutdown complete" in errors
    memory = re.search(r"^process_resident_memory_bytes (\S+)", metrics, re.MULTILINE)
    assert memory is not None
    # Feast, with PyTorch and pandas behind it, would be 600 MB more
    assert float(memory[1]) < 300e6


def _ready(http: httpx.Client) -> bool:
    try:
        return http.get("/readyz").is_success
    except httpx.TransportError:
        return False
