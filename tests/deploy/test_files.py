"""The compose file and the scrape config cannot be started here; what can be checked is."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from settings.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]


def own() -> dict[str, Any]:
    return {n: s for n, s in SERVICES.items() if s.get("image", "").startswith("headrace:")}


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_pinned(name: str) -> None:
    image, _, tag = SERVICES[name]["image"].rpartition(":")
    assert image, f"{name} has no tag"
    assert re.match(r"v?\d+\.\d+", tag), f"{name}: {tag} is no version"


def test_every_dependency_and_volume_exists() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("depends_on", [])) <= set(SERVICES), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), (name, volume)


def test_the_environment_is_of_real_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in own()["server"]["environment"].items():
        monkeypatch.setenv(name, value)
    settings = Settings()  # unknown names are refused by the settings themselves
    host, port = settings.kafka.bootstrap.split(":")
    listeners = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"INTERNAL://{host}:{port}" in listeners
    assert not settings.kafka.embedded
    assert settings.flink.master.split(":")[0] in SERVICES
    assert settings.feast.redis.split(":")[0] in SERVICES


def test_a_host_program_is_told_an_address_that_it_can_reach() -> None:
    kafka = SERVICES["kafka"]
    external = re.search(r"EXTERNAL://localhost:(\d+)", str(kafka["environment"]))
    assert external is not None
    assert f"{external[1]}:{external[1]}" in kafka["ports"]


def test_prometheus_scrapes_the_ports_that_the_settings_give() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = {
        target.split(":")[0]: int(target.split(":")[1])
        for job in config["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    }
    settings = Settings()
    assert targets == {
        "server": settings.serving.port,
        "trainer": settings.trainer.metrics_port,
        "writer": settings.writer_metrics_port,
        "job": settings.job_metrics_port,
        "clock": settings.clock_metrics_port,
    }


def test_kafka_and_flink_are_of_the_versions_that_the_packages_are() -> None:
    jars = tomllib.loads((ROOT / "streaming/kafka/jars.lock.toml").read_text())
    kafka = next(j for j in jars["kafka"] if j["artifact"] == "kafka_2.13")
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{kafka['version']}"
    lock = (ROOT / "requirements.lock").read_text()
    flink = re.search(r"^apache-flink==(\S+)", lock, re.MULTILINE)
    assert flink is not None
    assert SERVICES["jobmanager"]["image"].startswith(f"flink:{flink[1]}")


def test_the_image_copies_every_folder_of_code() -> None:
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for folder in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        assert f"COPY {folder} {folder}" in dockerfile
