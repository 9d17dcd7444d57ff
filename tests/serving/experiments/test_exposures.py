from __future__ import annotations

import json
from typing import Any

import pytest
from kafka import KafkaProducer

from serving.experiments.analysis import Exposure
from serving.experiments.assignment import Experiment, Variant
from serving.experiments.exposures import collect, experiment_report
from settings.errors import EventError
from settings.settings import Settings
from streaming.kafka.client import create_topics
from streaming.kafka.topics import SAMPLES


def sample(user: str, *, ts: int, label: int = 0, variant: str | None = "a") -> dict[str, Any]:
    return {
        "request_id": f"r{user}",
        "user_id": user,
        "item_id": "i",
        "ts": ts,
        "closed_ts": ts,
        "label": label,
        "weight": 1.0,
        "features": {},
        "variant": variant,
        "score": 0.25,
        "propensity": 0.5,
        "frontier": None,
    }


def write(settings: Settings, records: list[dict[str, Any] | bytes], *, commit: bool) -> None:
    client = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap, transactional_id=settings.kafka.topic_prefix
    )
    client.init_transactions()
    client.begin_transaction()
    for record in records:
        value = record if isinstance(record, bytes) else json.dumps(record).encode()
        client.send(settings.topic(SAMPLES), value, partition=0)
    client.flush()
    if commit:
        client.commit_transaction()
    else:
        client.abort_transaction()
    client.close()


def test_only_committed_samples_with_a_variant_count(cluster: Settings) -> None:
    create_topics(cluster)
    write(cluster, [sample("early", ts=5), sample("u1", ts=10, label=1)], commit=True)
    write(cluster, [sample("aborted", ts=20)], commit=False)
    write(cluster, [sample("u2", ts=30), sample("u3", ts=40, variant=None)], commit=True)
    write(cluster, [{"frontier": 50}], commit=True)
    assert list(collect(cluster, start_ms=10)) == [
        Exposure("u1", "a", 0.25, 1, 0.5),
        Exposure("u2", "a", 0.25, 0, 0.5),
    ]
    halves = (Variant("a", "champion", 0.5), Variant("b", "frozen", 0.5))
    result = experiment_report(cluster, Experiment("e", halves, start_ms=10))
    assert [(v.name, v.ctr.exposures, v.ctr.clicks) for v in result.variants] == [
        ("a", 2, 1),
        ("b", 0, 0),
    ]


def test_no_samples_yet(cluster: Settings) -> None:
    create_topics(cluster)
    assert list(collect(cluster)) == []


def test_a_foreign_record_is_named(cluster: Settings) -> None:
    create_topics(cluster)
    write(cluster, [b"{"], commit=True)
    with pytest.raises(EventError, match="offset 0"):
        list(collect(cluster))
