"""Fixtures of several tests of the trainer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from settings.settings import Settings
from tests.trainer.desk import Desk


@pytest.fixture
def desk(cluster: Settings, request: pytest.FixtureRequest) -> Iterator[Desk]:
    """Of the preset "state", or of the one that a test names."""
    made = Desk(cluster, preset=getattr(request, "param", "state"))
    yield made
    made.close()


@pytest.fixture
def begun(desk: Desk) -> Desk:
    """Warm, with its first versions."""
    desk.warm_up()
    desk.publisher.begin()
    return desk
