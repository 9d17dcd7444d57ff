"""Reading from one offset to another: committed records, an end, a deadline."""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
from kafka import KafkaProducer

from settings.errors import BrokerError
from settings.settings import Settings
from streaming.kafka import topics
from streaming.kafka.client import create_topics
from streaming.kafka.span import read_span, span


@contextmanager
def transactions(cluster: Settings) -> Iterator[KafkaProducer]:
    create_topics(cluster)
    producer = KafkaProducer(
        bootstrap_servers=cluster.kafka.bootstrap, transactional_id=cluster.kafka.topic_prefix
    )
    producer.init_transactions()
    with closing(producer):
        yield producer


def write(cluster: Settings, producer: KafkaProducer, *values: bytes, commit: bool = True) -> None:
    producer.begin_transaction()
    for value in values:
        producer.send(cluster.topic(topics.SAMPLES), value, partition=0)
    producer.flush()
    if commit:
        producer.commit_transaction()
    else:
        producer.abort_transaction()


def test_a_span_ends_behind_the_marks_of_transactions(cluster: Settings) -> None:
    at = cluster.topic(topics.SAMPLES), 0
    with transactions(cluster) as producer:
        write(cluster, producer, b"aborted", commit=False)
        write(cluster, producer, b"a", b"b", b"c")
        start, end = span(cluster, [topics.SAMPLES])
        assert (start, end) == ({at: 0}, {at: 6})  # 4 records, 2 marks of transactions
        assert [r.value for r in read_span(cluster, start, end)] == [b"a", b"b", b"c"]
        assert [r.value for r in read_span(cluster, {at: 3}, {at: 4})] == [b"b"]
        assert not list(read_span(cluster, {at: 6}, {at: 6}))
        start, _ = span(cluster, [topics.SAMPLES], newest=2)
        assert [r.value for r in read_span(cluster, start, end)] == [b"c"]
        everything = read_span(cluster, {at: 0}, end, committed=False)
        assert [r.value for r in everything] == [b"aborted", b"a", b"b", b"c"]


def test_who_waits_for_records_that_do_not_come_is_told_which(cluster: Settings) -> None:
    at = cluster.topic(topics.SAMPLES), 0
    with transactions(cluster) as producer:
        write(cluster, producer, b"a")
    began = time.monotonic()
    with pytest.raises(BrokerError, match=r"training\.samples/0 from 2 to 9"):
        list(read_span(cluster, {at: 0}, {at: 9}, patience_s=0.5))
    assert time.monotonic() - began < 5


def test_a_topic_that_does_not_exist_has_no_span(cluster: Settings) -> None:
    start, end = span(cluster, [topics.SAMPLES])
    assert not list(read_span(cluster, start, end))
