"""The clock: live time marks, ten times a second, in every partition of impressions and clicks.

``python -m streaming.kafka.clock SETTINGS``. Live events come from many senders, and none come
while nothing happens. The clock's time marks move the watermark all the same, so that samples
close. It must not run during a replay, which writes marks with the log's time.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from pathlib import Path

from prometheus_client import Counter, Gauge, start_http_server

from settings.errors import BrokerError, ConfigurationError
from settings.settings import Settings
from streaming.kafka.client import create_topics, wait_for_broker
from streaming.kafka.time_marks import Marker
from streaming.kafka.writer import Writer

log = logging.getLogger(__name__)

_EVERY_S = 0.1
_BROKER_S = 60.0


class ClockMetrics:
    """The clock's metrics."""

    def __init__(self) -> None:
        self.marks = Counter(
            "headrace_clock_marks_total", "Rounds of time marks, one in every partition"
        )
        self.lag = Gauge(
            "headrace_clock_lag_seconds", "How long the newest marks took to be acknowledged"
        )


def run(settings: Settings, stopping: threading.Event) -> None:
    """Write time marks until a stop is requested.

    While the broker is down no mark is written; one mark afterwards is enough, since old marks
    would add nothing.

    Raises:
        BrokerError: no broker within a minute of the start, or stopped while it was down.
    """
    metrics = ClockMetrics()
    wait_for_broker(settings, _BROKER_S)
    create_topics(settings)
    with Writer(settings, bulk=False, stopping=stopping) as writer:
        marker = Marker(settings, writer)
        log.info("marking time in %s every %.1f s", settings.kafka.bootstrap, _EVERY_S)
        while not stopping.wait(_EVERY_S):
            began = time.time()
            marker.mark(int(began * 1000))
            writer.flush()
            metrics.marks.inc()
            metrics.lag.set(time.time() - began)


def main(settings: Settings) -> None:
    """Run as a process until SIGTERM or SIGINT."""
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    start_http_server(settings.clock_metrics_port, addr=settings.metrics_host)
    run(settings, stopping)
    log.info("stopped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        main(Settings.read(Path(sys.argv[1])))
    except (BrokerError, ConfigurationError) as error:
        sys.exit(f"clock: {error}")
