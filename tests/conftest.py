"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from settings.settings import Settings
from streaming.kafka.broker import Broker

# read when torch and its kin are loaded: several threads of several processes on two cores wait for
# one another more than they work
os.environ.setdefault("OMP_NUM_THREADS", "1")


# files that take minutes: begun first, so that at the end no worker waits for another
_LONGEST = (
    "test_whole_loop.py",
    "job/test_job",
    "test_service.py",
    "test_driver.py",
    "test_alone.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, all else in its order."""
    items.sort(key=lambda item: not any(name in item.nodeid for name in _LONGEST))


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def free_settings(state: Path) -> Settings:
    """Settings with this state folder and free ports, and the smallest memory that works."""
    kafka, controller, trainer, writer, broker, clock, job, server = free_ports(8)
    return Settings(state=state).with_changes(
        kafka={
            "bootstrap": f"127.0.0.1:{kafka}",
            "controller_port": controller,
            "heap_mb": 256,
            "timestamps": "producer",
        },
        # a JVM that lives for seconds only loses by compiling for a long run: 15 s of CPU a start
        flink={"heap_mb": 768, "jvm_options": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"},
        trainer={"metrics_port": trainer},
        serving={"port": server},
        writer_metrics_port=writer,
        broker_metrics_port=broker,
        clock_metrics_port=clock,
        job_metrics_port=job,
    )


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A real broker for the whole run: settings that point to it. Its topics are shared.

    Take ``cluster`` for topics of your own.
    """
    settings = free_settings(tmp_path_factory.mktemp("broker"))
    with Broker(settings):
        yield settings


_prefixes = (f"t{number}." for number in itertools.count())


@pytest.fixture
def cluster(broker: Settings, tmp_path: Path) -> Settings:
    """Settings with a topic prefix and a state folder that no other test has."""
    return broker.with_changes(kafka={"topic_prefix": next(_prefixes)}, state=tmp_path)


@pytest.fixture
def unused_port() -> Callable[[], int]:
    """Gives a port that nobody listens on, a new one each call."""
    return lambda: free_ports(1)[0]
