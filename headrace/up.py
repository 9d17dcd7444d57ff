"""``headrace up``: all parts on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading

from rich.console import Console

from deploy.local import parts
from deploy.local.start import broker_and_topics
from settings.settings import Settings

WATCH_SECONDS = 1.0
PARTS = ("clock", "job", "writer", "trainer", "server")


def stay_up(settings: Settings, out: Console, *, clock: bool) -> None:
    """Start everything, watch it, stop on SIGINT or SIGTERM.

    Args:
        settings: of all parts.
        out: gets a line whenever something happens.
        clock: write live time marks; a replay brings its own, and its time is the log's.

    Raises:
        LaunchError: a part cannot be started or keeps dying.
    """
    stop = threading.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: stop.set())
    path = settings.state / parts.SETTINGS_FILE
    with broker_and_topics(settings, out.print) as launcher:
        names = [name for name in PARTS if clock or name != "clock"]
        launcher.start([parts.build(name, settings, path) for name in names])
        out.print(
            f"headrace is up: {parts.server_url(settings)}/docs; state in {settings.state}."
            " Ctrl-C stops it."
        )
        while not stop.wait(WATCH_SECONDS):
            launcher.watch()
        out.print("stopping")
