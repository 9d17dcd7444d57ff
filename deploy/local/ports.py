"""The ports that the parts listen on, and which of them are in use."""

from __future__ import annotations

import socket

from settings.settings import Settings


def ports(settings: Settings) -> dict[str, int]:
    """Every port that the parts listen on, by what it is for."""
    wanted = {
        "server": settings.serving.port,
        "trainer metrics": settings.trainer.metrics_port,
        "writer metrics": settings.writer_metrics_port,
        "job metrics": settings.job_metrics_port,
        "clock metrics": settings.clock_metrics_port,
    }
    if settings.kafka.embedded:
        wanted["broker"] = int(settings.kafka.bootstrap.rsplit(":", 1)[1])
        wanted["broker controller"] = settings.kafka.controller_port
        wanted["broker metrics"] = settings.broker_metrics_port
    return wanted


def busy_ports(settings: Settings) -> dict[str, int]:
    """Ports of the parts that are in use already, by what they are for."""
    return {what: port for what, port in ports(settings).items() if in_use(port)}


def in_use(port: int) -> bool:
    """Whether a process listens on this port of the machine."""
    with socket.socket() as probe:
        # like servers do: a port in TIME_WAIT is free
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
