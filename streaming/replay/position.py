"""The position of a replay, so that it can resume: exact after any stop, even a kill -9.

A position is written only when all events before it are acknowledged. It names, for each partition,
the offset from which later events are found. What a killed replay had sent after its last position
is found by reading the partitions from there: events that are already there are skipped.
"""

from __future__ import annotations

import fcntl
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from kafka import KafkaAdminClient

from inttower.core.durable_files import write_atomic
from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.events import Click, Impression
from streaming.kafka.client import admin, end_offsets
from streaming.kafka.span import read_span, span
from streaming.kafka.time_marks import EVENT_TOPICS
from streaming.kafka.topics import IMPRESSIONS

# a dead replay's last request may still be in the broker's socket
_SETTLE_S = 1.0
_TAIL_RECORDS = 200

Identity = tuple[str, str, str, str]
Offsets = dict[str, dict[int, int]]
Ends = dict[tuple[str, int], int]


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far a replay has got.

    ``following`` is the number of the first event that is not known to be on the broker;
    ``offsets`` the ends of the partitions then, by topic on the broker and partition; ``mark`` the
    newest time mark.
    """

    log: str
    count: int
    first: int
    following: int
    offsets: Offsets
    mark: int


class PositionFile:
    """The file of a log's position in the state folder."""

    def __init__(self, settings: Settings, log: str) -> None:
        self.path = settings.state.absolute() / "replay" / f"{log}.json"

    def read(self) -> Position | None:
        """The position, if there is one.

        Raises:
            ConfigurationError: the file is not one that this wrote.
        """
        if not self.path.exists():
            return None
        try:
            return msgspec.json.decode(self.path.read_bytes(), type=Position)
        except msgspec.DecodeError as error:
            raise ConfigurationError(
                f"{self.path} is no position of a replay ({error}): start anew with `headrace"
                " reset`"
            ) from error

    def write(self, position: Position) -> None:
        """Replace the file, whole or not at all."""
        write_atomic(self.path, msgspec.json.encode(position))

    @contextmanager
    def only_one(self) -> Iterator[None]:
        """Keep a second replay of this state folder out.

        Raises:
            ConfigurationError: one is running.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with (self.path.parent / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigurationError(
                    "another replay into this state folder is running: wait for it, or stop it"
                ) from error
            yield


def identity(event: Impression | Click) -> Identity:
    """What an event is known by."""
    if isinstance(event, Impression):
        return ("impression", event.request_id, event.user_id, event.item_id)
    return ("click", event.event_id, event.user_id, event.item_id)


def already_there(settings: Settings, position: Position) -> Counter[Identity]:
    """The events that lie behind a position on the broker.

    Raises:
        ConfigurationError: the topics are not those of the position.
        BrokerError: they cannot be read.
    """
    if not position.offsets:
        return Counter()
    with admin(settings) as client:
        ends = _stable_ends(settings, client)
    for topic, before in position.offsets.items():
        for partition, offset in before.items():
            if ends.get((topic, partition), -1) < offset:
                raise ConfigurationError(
                    f"the replay of {position.log} is at offset {offset} of {topic}/{partition}"
                    f", which ends at {ends.get((topic, partition))}: these are not the topics that"
                    " it wrote. Start anew with `headrace reset` or another --state"
                )
    starts = {
        (topic, partition): offset
        for topic, before in position.offsets.items()
        for partition, offset in before.items()
    }
    records = read_span(settings, starts, ends, committed=False)
    found = (_event(settings, record.topic, record.value) for record in records if record.value)
    return Counter(identity(event) for event in found if event is not None)


def topic_time(settings: Settings) -> int | None:
    """The newest record timestamp among the last records of the event topics.

    Returns:
        Milliseconds, or None where the topics are empty.
    """
    start, end = span(settings, EVENT_TOPICS, committed=False, newest=_TAIL_RECORDS)
    records = read_span(settings, start, end, committed=False)
    return max((record.timestamp for record in records), default=None)


def _ends(settings: Settings, client: KafkaAdminClient) -> Ends:
    return {
        (topic, partition): offset
        for topic in map(settings.topic, EVENT_TOPICS)
        for partition, offset in end_offsets(client, topic).items()
    }


def _stable_ends(settings: Settings, client: KafkaAdminClient) -> Ends:
    ends = _ends(settings, client)
    while True:
        time.sleep(_SETTLE_S)
        again = _ends(settings, client)
        if again == ends:
            return ends
        ends = again


def _event(settings: Settings, topic: str, value: bytes) -> Impression | Click | None:
    """The event of a record; None for a mark and for what others wrote wrongly."""
    try:
        if topic == settings.topic(IMPRESSIONS):
            return msgspec.json.decode(value, type=Impression)
        return msgspec.json.decode(value, type=Click)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
