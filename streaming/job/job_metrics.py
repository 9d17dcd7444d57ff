"""The job's metrics: from Flink's REST interface to Prometheus."""

from __future__ import annotations

import logging
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import orjson
from prometheus_client import Gauge

log = logging.getLogger(__name__)

_TIMEOUT_S = 2.0


class JobMetrics:
    """Gauges that follow a running job."""

    def __init__(self) -> None:
        self._up = Gauge("headrace_job_up", "1 while Flink reports that the job is running")
        self._checkpoints = Gauge("headrace_job_checkpoints_total", "Checkpoints completed")
        self._seconds = Gauge(
            "headrace_job_checkpoint_seconds", "Duration of the newest checkpoint"
        )
        self._bytes = Gauge("headrace_job_checkpoint_bytes", "Size of the newest checkpoint")
        self._restarts = Gauge(
            "headrace_job_restarts_total", "Restarts by Flink, inside the process"
        )
        self._records = Gauge(
            "headrace_job_records",
            "Records read and written by an operator",
            ["vertex", "direction"],
        )
        self._watermark = Gauge("headrace_job_watermark_ms", "Smallest watermark of all operators")

    def update(self, rest: str, job: str, status: str) -> None:
        """Update from Flink; without an answer gauges keep their values."""
        self._up.set(status == "RUNNING")
        if status != "RUNNING":
            return
        try:
            self._read(f"http://{rest}/jobs/{job}")
        except (URLError, TimeoutError, OSError) as error:
            log.warning("Flink's REST interface does not answer: %s", error)

    def _read(self, url: str) -> None:
        checkpoints = _get(f"{url}/checkpoints")
        self._checkpoints.set(checkpoints["counts"]["completed"])
        self._restarts.set(checkpoints["counts"]["restored"])
        newest = checkpoints["latest"]["completed"]
        if newest:
            self._seconds.set(newest["end_to_end_duration"] / 1000)
            self._bytes.set(newest["checkpointed_size"])
        watermarks = []
        for index, vertex in enumerate(_get(url)["vertices"]):
            for direction in ("read", "write"):
                records = vertex["metrics"][f"{direction}-records"]
                self._records.labels(str(index), direction).set(records)
            watermarks += [
                int(w["value"]) for w in _get(f"{url}/vertices/{vertex['id']}/watermarks")
            ]
        if watermarks:
            self._watermark.set(min(watermarks))


def _get(url: str) -> Any:  # noqa: ANN401 - JSON
    with urlopen(url, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - the job's own REST interface
        return orjson.loads(answer.read())
