from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import DefaultPartitioner

from settings.errors import BrokerError, ConfigurationError
from settings.settings import Settings
from streaming.kafka import topics
from streaming.kafka.broker import Broker
from streaming.kafka.client import (
    _probe,
    admin,
    consumer,
    create_topics,
    delete_topics,
    end_offsets,
    partition_for,
    partitions,
    wait_for_broker,
)
from streaming.kafka.span import read_span, span
from streaming.kafka.topics import CLICKS, Topic
from streaming.kafka.writer import Writer
from tests.conftest import free_settings


def test_all_topics_are_made_checked_and_deleted(cluster: Settings) -> None:
    create_topics(cluster)
    create_topics(cluster)  # once more: nothing to do, nothing wrong
    with admin(cluster) as client:
        for topic in topics.all_topics(cluster):
            assert len(partitions(client, topic.name)) == topic.partitions
    delete_topics(cluster)
    with admin(cluster) as client:
        assert partitions(client, cluster.topic(topics.SAMPLES)) == []
    create_topics(cluster)  # a name can be used again at once


def test_a_topic_of_other_settings_is_refused_with_the_cure(cluster: Settings) -> None:
    name = cluster.topic("impressions")
    create_topics(cluster, [Topic(name, 1, {"retention.ms": "-1"})])
    with pytest.raises(ConfigurationError, match=r"has 1 partitions.* say 2.*headrace reset"):
        create_topics(cluster)
    with pytest.raises(ConfigurationError, match=r"retention\.ms=-1, it must be 5"):
        create_topics(cluster, [Topic(name, 1, {"retention.ms": "5"})])


def test_more_replicas_than_brokers_are_refused(cluster: Settings) -> None:
    with pytest.raises(BrokerError, match=r"Are there 3 brokers"):
        create_topics(cluster.with_changes(kafka={"replication": 3}))


def test_old_records_are_kept(cluster: Settings) -> None:
    # a log of 2000 must not be deleted for its age; the segment rolls at once to make it possible
    create_topics(cluster)
    topic = cluster.topic(topics.IMPRESSIONS)
    with admin(cluster) as client:
        from kafka.admin import ConfigResource

        found = client.describe_configs([ConfigResource("TOPIC", topic)], config_filter="all")
        assert found["topic"][topic]["retention.ms"]["value"] == "-1"


def test_a_broker_that_is_not_there_is_named_with_the_cure(unused_port: Callable[[], int]) -> None:
    port = unused_port()
    settings = Settings().with_changes(kafka={"bootstrap": f"127.0.0.1:{port}"})
    with pytest.raises(BrokerError, match=rf"no Kafka broker answers at .*{port}.*headrace up"):
        wait_for_broker(settings, 0.5)
    elsewhere = settings.with_changes(kafka={"embedded": False})
    with pytest.raises(BrokerError, match="HEADRACE_KAFKA__BOOTSTRAP"):
        wait_for_broker(elsewhere, 0.5)


def test_somebody_else_on_the_port_is_no_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings = Settings().with_changes(kafka={"bootstrap": f"127.0.0.1:{port}"})
        with pytest.raises(BrokerError, match="no Kafka broker answers"):
            _probe(settings, 1.0)


def test_an_advertised_address_out_of_reach_is_named(
    broker: Settings, monkeypatch: pytest.MonkeyPatch, unused_port: Callable[[], int]
) -> None:
    from kafka import KafkaAdminClient

    lost = unused_port()
    monkeypatch.setattr(
        KafkaAdminClient,
        "describe_cluster",
        lambda self: {"brokers": [{"host": "127.0.0.1", "port": lost}]},
    )
    with pytest.raises(BrokerError, match=rf"advertises itself as 127\.0\.0\.1:{lost}.*listener"):
        wait_for_broker(broker, 0.5)


def test_a_malformed_bootstrap_is_refused() -> None:
    settings = Settings().with_changes(kafka={"bootstrap": "localhost:kafka"})
    with pytest.raises(ConfigurationError, match="HOST:PORT"):
        wait_for_broker(settings, 0.5)


def test_what_is_written_is_read_in_order(cluster: Settings) -> None:
    create_topics(cluster)
    topic = cluster.topic(topics.CLICKS)
    values = [str(i).encode() for i in range(12_000)]  # more than a chunk
    with Writer(cluster, bulk=True) as writer:
        for value in values:
            writer.send(topic, 1, b"k", value)
        assert writer.ends() == {topic: {1: len(values)}}
    reader = consumer(cluster, {(topic, 1): 0})
    found: list[bytes] = []
    while len(found) < len(values):
        for records in reader.poll(timeout_ms=1000).values():
            found.extend(record.value for record in records)
            assert {record.key for record in records} == {b"k"}
    reader.close()
    assert found == values


def test_readers_see_committed_records_only(cluster: Settings) -> None:
    from kafka import KafkaProducer

    create_topics(cluster)
    topic = cluster.topic(topics.SAMPLES)
    producer = KafkaProducer(
        bootstrap_servers=cluster.kafka.bootstrap, transactional_id=cluster.kafka.topic_prefix
    )
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"aborted", partition=0)
    producer.flush()
    with admin(cluster) as client:
        assert end_offsets(client, topic) == {0: 1}
        assert end_offsets(client, topic, committed=True) == {0: 0}
    producer.abort_transaction()
    producer.begin_transaction()
    producer.send(topic, b"kept", partition=0)
    producer.commit_transaction()
    producer.close()
    reader = consumer(cluster, {(topic, 0): 0})
    found: list[bytes] = []
    while not found:
        for records in reader.poll(timeout_ms=500).values():
            found.extend(record.value for record in records)
    reader.close()
    assert found == [b"kept"]


@given(key=st.binary(max_size=40), count=st.integers(1, 64))
def test_partitions_are_those_of_any_other_producer(key: bytes, count: int) -> None:
    class Cluster:
        def topics(self) -> set[str]:
            return {"t"}

        def partitions_for_topic(self, topic: str) -> set[int]:
            return set(range(count))

        available_partitions_for_topic = partitions_for_topic

    theirs = DefaultPartitioner().partition("t", None, key, None, None, Cluster())
    assert partition_for(key, count) == theirs


def test_writing_goes_on_after_the_broker_was_away(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    broker = Broker(settings)
    broker.start()
    try:
        create_topics(settings)
        with Writer(settings, bulk=False) as writer:
            writer.send(topics.CLICKS, 0, None, b"before")
            writer.flush()
            broker.kill()
            writer.send(topics.CLICKS, 0, None, b"while away")
            broker.start()
            writer.send(topics.CLICKS, 0, None, b"after")
            assert writer.ends() == {topics.CLICKS: {0: 3}}
    finally:
        broker.stop()


def test_a_writer_told_to_stop_does_not_wait_for_a_broker_that_is_away(tmp_path: Path) -> None:
    settings = free_settings(tmp_path)
    stopping = threading.Event()
    with Broker(settings) as broker:
        create_topics(settings)

        def write_into_the_void() -> None:
            with Writer(settings, bulk=False, stopping=stopping) as writer:
                writer.send(topics.CLICKS, 0, None, b"before")
                writer.flush()
                broker.kill()
                stopping.set()
                writer.send(topics.CLICKS, 0, None, b"lost")

        began = time.monotonic()
        with pytest.raises(BrokerError, match="stopped while the broker was down"):
            write_into_the_void()
        assert time.monotonic() - began < 15


def test_live_topics_are_stamped_by_the_broker_and_replayed_ones_by_the_producer(
    cluster: Settings,
) -> None:
    for timestamps, stamped in (("broker", False), ("producer", True)):
        settings = cluster.with_changes(
            kafka={"timestamps": timestamps, "topic_prefix": f"{timestamps}."}
        )
        create_topics(settings)
        with Writer(settings, bulk=False) as writer:
            writer.send(settings.topic(CLICKS), 0, b"u", b"{}", timestamp_ms=978_300_760_000)
        (record,) = read_span(settings, *span(settings, [CLICKS], committed=False))
        assert (record.timestamp == 978_300_760_000) == stamped
        other = "producer" if timestamps == "broker" else "broker"
        with pytest.raises(ConfigurationError, match=r"kafka\.timestamps.*--no-clock"):
            create_topics(settings.with_changes(kafka={"timestamps": other}))
