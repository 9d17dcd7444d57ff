"""The parts: the processes of a running headrace, and the readiness check of each."""

from __future__ import annotations

import os
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from deploy.local.launcher import Part
from features.declared import keep_declaration
from features.sql import render_job
from inttower.core.durable_files import write_atomic
from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.kafka.client import create_topics, wait_for_broker

SETTINGS_FILE = "settings.json"


def listens(host: str, port: int) -> bool:
    """Whether something accepts connections there."""
    try:
        with socket.create_connection((host, port), timeout=0.5):
            return True
    except OSError:
        return False


def answers(url: str) -> bool:
    """Whether a GET of the URL gives a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=1) as response:  # noqa: S310 (our own http URL)
            return 200 <= int(response.status) < 300
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def write_settings(settings: Settings) -> Path:
    """Write the resolved settings and the job's SQL to the state folder, for the parts.

    Returns:
        The path of the settings, which every part gets as its argument.
    """
    path = settings.state / SETTINGS_FILE
    sql = settings.state / "flink" / "job.sql"
    sql.parent.mkdir(parents=True, exist_ok=True)
    # a part that is starting meanwhile reads the file before or the new one
    write_atomic(path, settings.to_json())
    write_atomic(sql, render_job(keep_declaration(settings), settings).text.encode())
    return path


def broker(settings: Settings, path: Path) -> Part:
    """The embedded broker."""
    host, port = settings.kafka.bootstrap.rsplit(":", 1)
    return _module("broker", "streaming.kafka.broker", path, lambda: listens(host, int(port)))


def job(settings: Settings, path: Path) -> Part:
    """The Flink job; ready once Flink reports that it runs."""
    return _metrics("job", "streaming.job.flink_job", path, settings.job_metrics_port)


def writer(settings: Settings, path: Path) -> Part:
    """The feature store's writer."""
    return _metrics("writer", "features.feature_writer", path, settings.writer_metrics_port)


def trainer(settings: Settings, path: Path) -> Part:
    """The incremental trainer."""
    return _metrics("trainer", "trainer", path, settings.trainer.metrics_port)


def server(settings: Settings, path: Path) -> Part:
    """The HTTP server; being alive is enough, since it waits for a first version."""
    url = server_url(settings) + "/healthz"
    return _module("server", "serving", path, lambda: answers(url))


def clock(settings: Settings, path: Path) -> Part:
    """The live time marks."""
    return _metrics("clock", "streaming.kafka.clock", path, settings.clock_metrics_port)


_BUILDERS = {
    "broker": broker,
    "clock": clock,
    "job": job,
    "writer": writer,
    "trainer": trainer,
    "server": server,
}


def build(name: str, settings: Settings, path: Path) -> Part:
    """The part of that name.

    Args:
        name: one of broker, clock, job, writer, trainer, server.
        settings: what the part will read.
        path: the file that it will read them from.

    Raises:
        ConfigurationError: there is no such part.
    """
    if name not in _BUILDERS:
        raise ConfigurationError(f"no part {name!r}; there are topics, {', '.join(_BUILDERS)}")
    return _BUILDERS[name](settings, path)


def exec_component(settings: Settings, name: str) -> None:
    """Exec one part in place of this process (``topics``: create the topics and return)."""
    if name == "topics":
        wait_for_broker(settings)
        create_topics(settings)
        return
    command = list(build(name, settings, write_settings(settings)).command)
    os.execv(command[0], command)  # noqa: S606 - no shell is wanted between us and the part


def server_url(settings: Settings) -> str:
    """Where the server of these settings answers."""
    return f"http://{settings.serving.host}:{settings.serving.port}"


def _module(name: str, module: str, path: Path, ready: Callable[[], bool]) -> Part:
    return Part(name, [sys.executable, "-m", module, str(path)], ready)


def _metrics(name: str, module: str, path: Path, port: int) -> Part:
    return _module(name, module, path, lambda: answers(f"http://127.0.0.1:{port}/metrics"))
