"""A broker that goes away: rankings go on, events are answered honestly, nothing is lost."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client import REGISTRY

from streaming.kafka.broker import Broker
from streaming.kafka.topics import IMPRESSIONS
from tests.conftest import free_settings
from tests.serving.conftest import NOW, Models, worlds

if TYPE_CHECKING:
    from inttower.models.inttower import IntTower

EVENT = {"request_id": "r", "user_id": "u1", "item_id": "i1", "ts": NOW}


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Broker]:
    """A broker of its own."""
    with Broker(free_settings(tmp_path)) as broker:
        yield broker


# kafka-python never closes a socket whose connection was refused
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_that_goes_away(
    mortal: Broker, models: Models, model: IntTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.http.app._DELIVERY_S", 0.3)
    monkeypatch.setattr("serving.http.outbox._STOP_S", 1.0)
    with worlds(mortal.settings, models) as make:
        world = make()
        world.start()
        world.publish(model, "000001")
        world.until(lambda: world.serving() == ("000001", -1))
        world.rank("u1", k=2, log="shown")
        world.until(lambda: world.metric("headrace_outbox_pending") == 0)

        mortal.kill()
        began = time.monotonic()
        shown = [world.rank("u1", k=3, log="shown") for _ in range(20)]
        assert time.monotonic() - began < 2, "a ranking waited for the broker"
        answer = world.http.post("/v1/events", json=EVENT)
        assert answer.status_code == 503
        error = answer.json()["error"]
        assert mortal.settings.kafka.bootstrap in error["cause"]
        assert "post the same events again" in error["cure"]
        assert world.metric("headrace_outbox_pending") >= 60
        assert world.http.get("/readyz").is_success

        mortal.start()
        world.until(lambda: world.http.post("/v1/events", json=EVENT).status_code == 202)
        world.until(lambda: world.metric("headrace_outbox_pending") == 0)
        found = {i["request_id"] for i in world.read(IMPRESSIONS)}
        assert found >= {answer["request_id"] for answer in shown}
        row = models.held(model).user_rows[0]
        number = world.send_delta("000001", users={"after the outage": row})
        world.until(lambda: world.serving() == ("000001", number))

        lost = {"topic": world.settings.topic(IMPRESSIONS), "reason": "stopped"}
        world.kafka.close()
        mortal.kill()
        world.rank("u1", k=4, log="shown")
        began = time.monotonic()
        world.stop()
        assert time.monotonic() - began < 10
        assert REGISTRY.get_sample_value("headrace_outbox_lost_total", lost) == 4
    gc.collect()  # here, where the warnings are not errors
