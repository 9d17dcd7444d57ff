"""Starts the broker and creates the topics: what every other part needs first."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy.local import parts
from deploy.local.launcher import Launcher
from settings.settings import Settings
from streaming.kafka.client import create_topics, wait_for_broker


@contextmanager
def broker_and_topics(
    settings: Settings, report: Callable[[str], None], most_deaths: int | None = None
) -> Iterator[Launcher]:
    """A launcher with the broker running, all topics created, and the settings written.

    Args:
        settings: of all parts; the caller holds the lock of their state folder.
        report: called with one line whenever something happens.
        most_deaths: see :class:`~deploy.local.launcher.Launcher`.

    Raises:
        LaunchError: the broker did not start.
        BrokerError: no broker answers at ``kafka.bootstrap``.
    """
    path = parts.write_settings(settings)
    with Launcher(settings.state, report, settings.deploy, most_deaths) as launcher:
        if settings.kafka.embedded:
            launcher.start([parts.broker(settings, path)])
        wait_for_broker(settings)
        create_topics(settings)
        yield launcher
