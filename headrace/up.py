"""``headrace up``: all parts on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import threading
from contextlib import ExitStack

from rich.console import Console

from deploy.local import parts
from deploy.local.start import broker_and_topics
from deploy.local.state_lock import state_lock
from settings.settings import Settings
from streaming.logs.choose import with_log_file

WATCH_SECONDS = 0.5
PARTS = ("clock", "job", "writer", "trainer", "server")


def stay_up(settings: Settings, out: Console, *, clock: bool) -> None:
    """Start all parts, watch them, stop on SIGINT or SIGTERM.

    A part that dies is restarted, however often; the others keep running.

    Args:
        settings: of all parts.
        out: one line is printed whenever something happens.
        clock: write live time marks, and let the broker stamp the events; a replay writes marks
            and stamps of its own, with the log's time.

    Raises:
        ConfigurationError: the state folder is in use.
        LaunchError: the broker cannot be started.
        BrokerError: nothing answers at ``kafka.bootstrap``.
    """
    if not clock:
        settings = settings.with_changes(kafka={"timestamps": "producer"})

    def say(line: str) -> None:
        out.print(line, markup=False, highlight=False, soft_wrap=True)

    settings = with_log_file(settings)
    stop = threading.Event()
    path = settings.state / parts.SETTINGS_FILE
    names = [name for name in PARTS if clock or name != "clock"]
    with ExitStack() as stack:
        stack.enter_context(state_lock(settings.state, "headrace up"))
        for one in (signal.SIGINT, signal.SIGTERM):
            signal.signal(one, lambda *_: stop.set())
        launcher = stack.enter_context(broker_and_topics(settings, say))
        launcher.begin([parts.build(name, settings, path) for name in names])
        starting = True
        while not stop.wait(WATCH_SECONDS):
            launcher.watch()
            if starting and launcher.ready(names):
                starting = False
                say(
                    f"headrace is up: {parts.server_url(settings)}/docs; state in {settings.state}."
                    " Ctrl-C stops it."
                )
        say("stopping")
