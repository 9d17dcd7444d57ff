"""Kafka clients with our settings: admin, producer, consumer, topics, offsets.

Producers are idempotent and wait for all replicas. Consumers read committed records only, are
assigned their partitions explicitly, and commit no offsets: each reader stores its offsets with its
own state.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterable, Mapping
from functools import lru_cache

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, OffsetSpec
from kafka.consumer.fetcher import IsolationLevel
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from settings.errors import BrokerError, ConfigurationError
from settings.settings import Settings
from streaming.kafka.topics import Topic, all_topics

log = logging.getLogger(__name__)

_POLL_S = 0.1
_TIMESTAMPS_KEY = "message.timestamp.type"
_TIMESTAMPS_HELP = (
    " The setting is kafka.timestamps: 'broker' for live events (`headrace up`), 'producer' for"
    " a replay (`headrace up --no-clock`)"
)
# a broker may be down for a long time: records are retried for this long
_DELIVERY_MS = 6 * 3_600_000


def admin(settings: Settings, timeout_s: float = 10.0) -> KafkaAdminClient:
    """An admin client for topics and offsets; a context manager.

    Raises:
        BrokerError: no broker answers at ``kafka.bootstrap``.
    """
    try:
        return KafkaAdminClient(
            bootstrap_servers=settings.kafka.bootstrap, bootstrap_timeout_ms=int(timeout_s * 1000)
        )
    except KafkaError as error:
        raise _no_broker(settings, error) from error


def producer(settings: Settings, *, bulk: bool = False) -> KafkaProducer:
    """An idempotent producer that waits for all replicas.

    Args:
        settings: where the broker is.
        bulk: True gathers records for 20 ms into batches of 256 KiB, which triples the rate of a
            replay; False sends at once.
    """
    batching = {"linger_ms": 20, "batch_size": 262_144} if bulk else {"linger_ms": 0}
    try:
        return KafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap,
            acks="all",
            enable_idempotence=True,
            delivery_timeout_ms=_DELIVERY_MS,
            allow_auto_create_topics=False,
            # reconnect soon after a broker restarts
            reconnect_backoff_max_ms=1_000,
            metrics_enabled=False,
            **batching,
        )
    except KafkaError as error:
        raise _no_broker(settings, error) from error


def consumer(
    settings: Settings,
    offsets: Mapping[tuple[str, int], int],
    *,
    committed: bool = True,
    max_poll_records: int = 5_000,
    wait_ms: int = 100,
) -> KafkaConsumer:
    """A consumer that is assigned these partitions, from these offsets on.

    Args:
        settings: where the broker is.
        offsets: next offset to read by (topic name on the broker, partition).
        committed: hide records of open and aborted transactions.
        max_poll_records: most records that one ``poll`` returns.
        wait_ms: how long the broker waits for records before it answers with none.
    """
    try:
        client = KafkaConsumer(
            bootstrap_servers=settings.kafka.bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed" if committed else "read_uncommitted",
            allow_auto_create_topics=False,
            max_poll_records=max_poll_records,
            fetch_max_wait_ms=wait_ms,
            max_partition_fetch_bytes=4_194_304,
            reconnect_backoff_max_ms=1_000,
            metrics_enabled=False,
        )
    except KafkaError as error:
        raise _no_broker(settings, error) from error
    client.assign([TopicPartition(*key) for key in offsets])
    for key, offset in offsets.items():
        client.seek(TopicPartition(*key), offset)
    return client


def wait_for_broker(settings: Settings, timeout_s: float = 30.0) -> None:
    """Return once the cluster answers and each address that it advertises can be reached.

    Raises:
        BrokerError: not in time; the message names the address that fails, bootstrap or advertised.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _probe(settings, max(0.5, deadline - time.monotonic()))
        except BrokerError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return


def _probe(settings: Settings, timeout_s: float) -> None:
    bootstraps = [entry.strip() for entry in settings.kafka.bootstrap.split(",")]
    failures = [failure for entry in bootstraps if (failure := _connect(entry))]
    if len(failures) == len(bootstraps):
        raise _no_broker(settings, failures[0])
    with admin(settings, min(timeout_s, 10.0)) as client:
        try:
            brokers = client.describe_cluster()["brokers"]
        except KafkaError as error:
            raise _no_broker(settings, error) from error
    for broker in brokers:
        advertised = f"{broker['host']}:{broker['port']}"
        failure = _connect(advertised)
        if failure:
            raise BrokerError(
                f"the broker at {settings.kafka.bootstrap} advertises itself as {advertised}, which"
                f" cannot be reached from here ({failure}): give it an advertised.listeners address"
                " that its clients can reach, or use the listener that is meant for this network"
            )


def _connect(address: str) -> OSError | None:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=2.0):
            return None
    except OSError as error:
        return error
    except ValueError as error:
        raise ConfigurationError(f"{address!r} in kafka.bootstrap is not HOST:PORT") from error


def _no_broker(settings: Settings, error: Exception) -> BrokerError:
    cure = (
        "start it with `headrace up`"
        if settings.kafka.embedded
        else "is it running, and is kafka.bootstrap right (HEADRACE_KAFKA__BOOTSTRAP)?"
    )
    return BrokerError(f"no Kafka broker answers at {settings.kafka.bootstrap} ({error}): {cure}")


def create_topics(settings: Settings, topics: Iterable[Topic] | None = None) -> None:
    """Create missing topics; check the settings of existing ones.

    Args:
        settings: where the broker is; names, partitions and replication of the topics.
        topics: default: all of ours.

    Raises:
        ConfigurationError: a topic exists with other partitions or settings.
        BrokerError: the broker refuses.
    """
    wanted = tuple(all_topics(settings) if topics is None else topics)
    with admin(settings) as client:
        try:
            there = set(client.list_topics())
            missing = [topic for topic in wanted if topic.name not in there]
            if missing:
                layout = {
                    topic.name: {
                        "num_partitions": topic.partitions,
                        "replication_factor": settings.kafka.replication,
                        "configs": topic.config,
                    }
                    for topic in missing
                }
                client.create_topics(layout, wait_for_metadata=True)
            _check_topics(client, [topic for topic in wanted if topic.name in there])
        except KafkaError as error:
            raise BrokerError(
                f"cannot create the topics: {error}. Are there {settings.kafka.replication}"
                " brokers (kafka.replication), and may this client create topics?"
            ) from error


def _check_topics(client: KafkaAdminClient, topics: list[Topic]) -> None:
    if not topics:
        return
    names = [topic.name for topic in topics]
    partitions = {
        found["name"]: len(found["partitions"]) for found in client.describe_topics(names)
    }
    resources = [ConfigResource("TOPIC", name) for name in names]
    configs = client.describe_configs(resources, config_filter="all")["topic"]
    for topic in topics:
        if partitions[topic.name] != topic.partitions:
            raise ConfigurationError(
                f"topic {topic.name} has {partitions[topic.name]} partitions, the settings say"
                f" {topic.partitions}: restore that setting, or delete everything with"
                " `headrace reset`"
            )
        for key, value in topic.config.items():
            found = configs[topic.name][key]["value"]
            if found != value:
                raise ConfigurationError(
                    f"topic {topic.name} has {key}={found}, it must be {value}: change it on the"
                    " broker (kafka-configs.sh --alter), or delete everything with `headrace"
                    f" reset`.{_TIMESTAMPS_HELP if key == _TIMESTAMPS_KEY else ''}"
                )


def delete_topics(settings: Settings, timeout_s: float = 30.0) -> None:
    """Delete our topics, and wait until they are gone.

    Raises:
        BrokerError: the broker refuses or takes too long.
    """
    names = {topic.name for topic in all_topics(settings)}
    deadline = time.monotonic() + timeout_s
    with admin(settings) as client:
        try:
            doomed = names & set(client.list_topics())
            if doomed:
                client.delete_topics(sorted(doomed))
            while names & set(client.list_topics()):
                if time.monotonic() > deadline:
                    raise BrokerError(f"topics still there after {timeout_s:.0f} s; run it again")
                time.sleep(_POLL_S)
        except KafkaError as error:
            raise BrokerError(f"cannot delete the topics: {error}") from error


def partitions(client: KafkaAdminClient, topic: str) -> list[int]:
    """The partitions of a topic, by its name on the broker; empty if there is no such topic."""
    if topic not in client.list_topics():
        return []
    return sorted(
        partition["partition_index"]
        for found in client.describe_topics([topic])
        for partition in found["partitions"]
    )


def begin_offsets(client: KafkaAdminClient, topic: str) -> dict[int, int]:
    """First offset that is still kept, by partition."""
    return _offsets(client, topic, OffsetSpec.EARLIEST, IsolationLevel.READ_UNCOMMITTED)


def end_offsets(client: KafkaAdminClient, topic: str, *, committed: bool = False) -> dict[int, int]:
    """Offset of the next record, by partition.

    Args:
        client: an admin client.
        topic: the name on the broker.
        committed: the end as a ``read_committed`` consumer sees it (before the first open
            transaction).
    """
    level = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    return _offsets(client, topic, OffsetSpec.LATEST, level)


def _offsets(
    client: KafkaAdminClient, topic: str, spec: OffsetSpec, level: IsolationLevel
) -> dict[int, int]:
    wanted = {TopicPartition(topic, partition): spec for partition in partitions(client, topic)}
    if not wanted:
        return {}
    try:
        found = client.list_partition_offsets(wanted, isolation_level=level)
    except KafkaError as error:
        raise BrokerError(f"cannot read the offsets of {topic}: {error}") from error
    return {key.partition: value.offset for key, value in found.items()}


@lru_cache(maxsize=1 << 16)
def partition_for(key: bytes, count: int) -> int:
    """The partition of a key, by the default hash of Java clients (murmur2).

    >>> partition_for(b"42", 2)
    0
    """
    return int((murmur2(key) & 0x7FFFFFFF) % count)
