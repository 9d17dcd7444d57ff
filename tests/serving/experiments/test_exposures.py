from __future__ import annotations

import json
from typing import Any

import pytest
from kafka import KafkaProducer

from serving.experiments.assignment import Experiment, Variant
from serving.experiments.exposure import Exposure
from serving.experiments.exposures import collect, experiment_report
from settings.errors import EventError
from settings.settings import Settings
from streaming.kafka.client import create_topics
from streaming.kafka.topics import SAMPLES

WINDOW = 500


def shown(number: int, user: str, *, at: int, experiment: str | None = "e") -> dict[str, Any]:
    return {
        "shown_at": at,
        "request_id": f"r{user}",
        "user_id": user,
        "item_id": "i",
        "ts": at,
        "features": {},
        "impression_at": [0, number],
        "experiment": experiment,
        "variant": "a" if experiment else None,
        "score": 0.25,
        "propensity": 0.5,
        "watermark": None,
    }


def action(number: int, *, at: int, label: int = 1) -> dict[str, Any]:
    return {"action_at": at, "label": label, "impression_at": [0, number]}


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


def test_what_counts_is_committed_of_the_experiment_and_past_its_window(cluster: Settings) -> None:
    create_topics(cluster)
    settings = cluster.with_changes(log={"attribution_ms": WINDOW})
    early = [shown(0, "early", at=5), action(1, at=12), shown(1, "u1", at=10)]
    write(settings, [*early, shown(2, "of another", at=11, experiment="f")], commit=True)
    write(settings, [shown(3, "aborted", at=20)], commit=False)
    late = [
        shown(4, "u2", at=30),
        action(4, at=31, label=0),
        shown(5, "no", at=30, experiment=None),
    ]
    # both are shown by now, one is clicked already: neither counts before its window has passed
    young = [shown(6, "u3", at=40), action(6, at=41), shown(7, "u4", at=40)]
    write(settings, [*late, *young, {"watermark": 40 + WINDOW}], commit=True)
    expected = [Exposure("u1", "a", 0.25, 1, 0.5, ts=10), Exposure("u2", "a", 0.25, 0, 0.5, ts=30)]
    assert collect(settings, "e", start_ms=10).exposures == expected
    write(settings, [{"watermark": 41 + WINDOW}], commit=True)
    expected += [Exposure("u3", "a", 0.25, 1, 0.5, ts=40), Exposure("u4", "a", 0.25, 0, 0.5, ts=40)]
    assert collect(settings, "e", start_ms=10).exposures == expected
    halves = (Variant("a", "champion", 0.5), Variant("b", "frozen", 0.5))
    result = experiment_report(settings, Experiment("e", halves, start_ms=10))
    assert [(v.name, v.ctr.exposures, v.ctr.clicks) for v in result.variants] == [
        ("a", 4, 2),
        ("b", 0, 0),
    ]


def test_no_samples_yet(cluster: Settings) -> None:
    create_topics(cluster)
    assert collect(cluster, "e").exposures == []


def test_a_foreign_record_is_named(cluster: Settings) -> None:
    create_topics(cluster)
    write(cluster, [b"{"], commit=True)
    with pytest.raises(EventError, match="offset 0"):
        collect(cluster, "e")
