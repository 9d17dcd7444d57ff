"""``headrace replay``: sends a log into the topics of a running headrace."""

from __future__ import annotations

import signal

from rich.console import Console

from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.kafka.client import wait_for_broker
from streaming.logs import EventLog
from streaming.logs.choose import with_log_file
from streaming.replay.progress_bar import progress_bar
from streaming.replay.replayer import Replayer, number_at


def replay_log(
    settings: Settings, log: EventLog, *, speed: float, start: str, end: str, out: Console
) -> None:
    """Replay a stretch of a log; Ctrl-C stops at an exact record, where the next call resumes.

    Args:
        settings: where the broker is; ``log.name`` must be the log's declaration.
        log: what to replay.
        speed: event time over wall time; 0: as fast as possible.
        start: a fraction or a time of the log.
        end: likewise, exclusive.
        out: the result is printed there.
    """
    settings = with_log_file(settings)
    if log.declaration != settings.log.name:
        raise ConfigurationError(
            f"this is the log {log.name!r}, and headrace runs with the features of"
            f" {settings.log.name!r}: start `up` with --set log.file= and this log's TOML or name"
        )
    # a replay is what this is: topics on the broker's clock are refused, with the cure
    settings = settings.with_changes(kafka={"timestamps": "producer"})
    wait_for_broker(settings)
    replay = Replayer(
        settings,
        log,
        first=number_at(log, start),
        stop=number_at(log, end),
        speed=speed or None,
    )
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, lambda *_: replay.stop())
    with progress_bar(f"replaying {log.name}") as progress:
        done = replay.run(progress=progress)
    if done.finished:
        with out.status("the job closes the last samples (Ctrl-C leaves it to the next marks) ..."):
            replay.close_samples()
    out.print(
        f"{done.impressions:,} impressions and {done.clicks:,} clicks in {done.seconds:.1f} s"
        f" ({done.events_per_second:,.0f} events/s)"
        + ("" if done.finished else "; stopped: the same command resumes at the same record")
    )
