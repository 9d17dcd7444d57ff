"""Replay an event log into the topics, at N times event speed or as fast as it goes.

The catalogue comes first, then the events of both topics in the log's order with time marks among
them, then a last mark behind the end that closes every sample. A replay that was stopped, by Ctrl-C
or by kill -9, goes on at the same record (:mod:`streaming.replay.position`).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.events import Impression, encode
from streaming.kafka import topics
from streaming.kafka.client import create_topics, partition_for
from streaming.kafka.time_marks import Marker
from streaming.kafka.watermark import WatermarkReader
from streaming.kafka.writer import Writer
from streaming.logs.event_log import Event, EventLog, known_events
from streaming.replay.lead import Lead
from streaming.replay.pace import Pace
from streaming.replay.position import (
    Identity,
    Position,
    PositionFile,
    already_there,
    identity,
    topic_time,
)

_MARK_S = 0.1
_MARK_EVENTS = 1_000
_POSITION_S = 2.0
_CLOSING_MARGIN_MS = 60_000
_CLOSING_S = 0.5

Transform = Callable[[Event], Event]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a run of a replay did: counts of this run, and whether it reached its end."""

    impressions: int
    clicks: int
    seconds: float
    resumed_at: int
    finished: bool

    @property
    def events_per_second(self) -> float:
        """Events of this run by its wall time."""
        return (self.impressions + self.clicks) / self.seconds if self.seconds > 0 else 0.0


def number_at(log: EventLog, point: str) -> int:
    """The event that a fraction or a time of the log names.

    A fraction counts events and is moved back to the first event of its millisecond, so that no
    instant is divided.

    Args:
        log: the log.
        point: a fraction (``0.8``), or a time in ISO form (``2000-05-01``, UTC unless it says).

    Raises:
        ConfigurationError: it is neither.
    """
    try:
        fraction = float(point)
    except ValueError:
        return log.index_at(_milliseconds(point))
    if not 0 <= fraction <= 1:
        raise ConfigurationError(f"{point} is not a fraction of the log: give 0 to 1")
    number = int(fraction * log.count)
    return number if number in {0, log.count} else log.index_at(time_of(log, number))


def time_of(log: EventLog, number: int) -> int:
    """When an event became known (ms), by its number."""
    return next(known_events(log, number, number + 1))[1]


def _milliseconds(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigurationError(
            f"{text!r} is no point of a log: give a fraction such as 0.8 or a time such as"
            " 2000-05-01T12:00"
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


class Replayer:
    """One log on its way into the topics.

    Args:
        settings: broker, topics and the state folder of the position.
        log: what to replay.
        first: number of the first event.
        stop: number of the event to stop before; None: the log's end.
        speed: event time over wall time; None: as fast as it goes.
        longest_wait_s: with a speed, a gap in the log is shortened to this much wall time.
        close: write the last mark so far behind that every sample closes. What comes later from the
            log would then be late, so by default only at the log's end.
        catalogue: write items and users first.
        lead: wait while the job is more than so many events behind; None: never wait for it.
    """

    def __init__(
        self,
        settings: Settings,
        log: EventLog,
        *,
        first: int = 0,
        stop: int | None = None,
        speed: float | None = None,
        longest_wait_s: float | None = None,
        close: bool | None = None,
        catalogue: bool = True,
        lead: int | None = None,
    ) -> None:
        self.settings = settings
        self.log = log
        self.first = first
        self.end = log.count if stop is None else min(stop, log.count)
        if not 0 <= first < self.end:
            raise ConfigurationError(
                f"nothing to replay: the start is event {first}, the end {self.end} of {log.count}"
            )
        if speed is not None and speed <= 0:
            raise ConfigurationError(f"a replay at {speed} times event speed never moves")
        self.speed = speed
        self.longest_wait_s = longest_wait_s
        self.close = self.end == log.count if close is None else close
        self.catalogue = catalogue
        self.lead = lead
        self.stopping = threading.Event()
        self._file = PositionFile(settings, log.name)

    def stop(self) -> None:
        """End the run soon, at an exact position; from a signal handler or another thread."""
        self.stopping.set()

    def close_samples(self, waiting: Callable[[], None] | None = None) -> None:
        """After :meth:`run` has finished: return once the job has closed all that the marks allow.

        A mark advances the samples' watermark to the time *before* it, so the last one needs others
        behind it, for as long as the job has not come to it.

        Args:
            waiting: called about twice a second meanwhile.

        Raises:
            BrokerError: the broker cannot be reached.
        """
        position = self._file.read()
        if position is None:
            return
        with (
            Writer(self.settings, bulk=False, stopping=self.stopping) as writer,
            WatermarkReader(self.settings) as watermark,
        ):
            marker = Marker(self.settings, writer)
            slack = self.settings.flink.out_of_orderness_ms + 1
            while watermark.newest() < position.mark - slack:
                marker.mark(position.mark)
                writer.flush()
                if waiting:
                    waiting()
                if self.stopping.wait(_CLOSING_S):
                    return

    def run(
        self, *, transform: Transform | None = None, progress: Progress | None = None
    ) -> Replayed:
        """Replay to the end, or until :meth:`stop`; resume where an earlier run ended.

        Args:
            transform: is given each event when its turn has come, and returns what to produce in
                its place (same ids and time).
            progress: called with events done and in all, about ten times a second.

        Raises:
            ConfigurationError: the topics' time is beyond the start, or the topics are not those
                of the position; the message has the cure.
            BrokerError: the broker cannot be reached or refuses.
        """
        if self.settings.kafka.timestamps != "producer":
            raise ConfigurationError(
                "kafka.timestamps is 'broker': a replay writes the log's own times into the topics;"
                " start the parts with `headrace up --no-clock`, or set it to 'producer'"
            )
        create_topics(self.settings)
        with self._file.only_one():
            position = self._file.read() or self._fresh()
            self._require_time_for(position)
            behind = position.following < self.end
            there = already_there(self.settings, position) if behind else Counter()
            bulk = self.speed is None
            with ExitStack() as stack:
                writer = stack.enter_context(
                    Writer(self.settings, bulk=bulk, stopping=self.stopping)
                )
                run = _Run(self, position, writer, self._file, there)
                if self.lead is not None:
                    reader = stack.enter_context(WatermarkReader(self.settings))
                    run.lead = Lead.of(self.settings, reader, self.lead)
                return run.go(transform, progress)

    def _fresh(self) -> Position:
        now = topic_time(self.settings)
        return Position(
            log=self.log.name,
            count=self.log.count,
            first=self.first,
            following=self.first,
            offsets={},
            mark=0 if now is None else now,
        )

    def _require_time_for(self, position: Position) -> None:
        following = position.following
        if position.count != self.log.count or not position.first <= self.first <= following:
            raise ConfigurationError(
                f"an earlier replay of {self.log.name} into these topics went from event"
                f" {position.first} to {following} of {position.count}, which this one (from"
                f" {self.first} of {self.log.count}) does not go on from: begin where it did, or"
                " empty the topics with `headrace reset`, or use another --state"
            )
        if following < self.end and position.mark > time_of(self.log, following):
            raise ConfigurationError(
                f"the topics' time is {_text(position.mark)} already, and what {self.log.name} has"
                f" to say begins at {_text(time_of(self.log, following))}: all of it would be late."
                " Empty the topics with `headrace reset`, or use another --state"
            )


class _Run:
    """One run: what has been sent, and when the next mark and the next position are due."""

    def __init__(
        self,
        replay: Replayer,
        position: Position,
        writer: Writer,
        file: PositionFile,
        there: Counter[Identity],
    ) -> None:
        self._replay = replay
        self._resumed_at = position.following
        self._position = position
        self._writer = writer
        self._file = file
        self._there = there
        self._marker = Marker(replay.settings, writer)
        start = time_of(replay.log, min(position.following, replay.end - 1))
        self._pace = Pace(replay.speed, start, replay.longest_wait_s)
        self._partitions = replay.settings.kafka.partitions
        self._impressions_topic = replay.settings.topic(topics.IMPRESSIONS)
        self._clicks_topic = replay.settings.topic(topics.CLICKS)
        self._following = position.following
        self._mark = position.mark
        self._unmarked = 0
        self._next_mark = self._next_position = time.monotonic()
        self._impressions = 0
        self._clicks = 0
        self.lead: Lead | None = None

    def go(self, transform: Transform | None, progress: Progress | None) -> Replayed:
        """Send everything from the position on."""
        began = time.monotonic()
        if self._replay.catalogue:
            self._send_catalogue()
        self._send_events(transform, progress)
        finished = self._following >= self._replay.end
        if finished:
            self._write_mark(self._last_mark())
        self._keep()
        return Replayed(
            impressions=self._impressions,
            clicks=self._clicks,
            seconds=time.monotonic() - began,
            resumed_at=self._resumed_at,
            finished=finished,
        )

    def _send_catalogue(self) -> None:
        log, settings = self._replay.log, self._replay.settings
        for name, entities in ((topics.ITEMS, log.items()), (topics.USERS, log.users())):
            for entity in entities:
                self._writer.send(settings.topic(name), 0, entity.id.encode(), encode(entity))
        self._writer.flush()

    def _send_events(self, transform: Transform | None, progress: Progress | None) -> None:
        replay = self._replay
        for event, known_ms in known_events(replay.log, self._following, replay.end):
            if not self._wait_for(known_ms, progress):
                return
            if not self._is_there(event):
                self._send(transform(event) if transform else event, known_ms)
            self._following += 1
            self._unmarked += 1
        self._tell(progress)

    def _wait_for(self, known_ms: int, progress: Progress | None) -> bool:
        """Wait until the event is due, writing marks meanwhile; False when a stop was requested."""
        due = self._pace.due(known_ms)
        while True:
            now = time.monotonic()
            if now >= self._next_mark or self._unmarked >= _MARK_EVENTS:
                # nothing before the next event follows; in a gap, time goes on without events
                self._write_mark(min(known_ms - 1, self._pace.event_time(now)))
                self._next_mark = now + _MARK_S
                self._tell(progress)
                if now >= self._next_position:
                    self._keep()
                    self._next_position = now + _POSITION_S
            ahead = self.lead is not None and self.lead.exceeded
            if now >= due and not ahead:
                return not self._replay.stopping.is_set()
            # marks are written meanwhile: each lets the job pass the one before it on
            until = self._next_mark if ahead else min(due, self._next_mark)
            if self._replay.stopping.wait(max(0.0, until - now)):
                return False

    def _is_there(self, event: Event) -> bool:
        """Whether the run before this one sent the event already."""
        if not self._there or not self._there[identity(event)]:
            return False
        self._there[identity(event)] -= 1
        return True

    def _send(self, event: Event, known_ms: int) -> None:
        key = event.user_id.encode()
        partition = partition_for(key, self._partitions)
        if isinstance(event, Impression):
            self._impressions += 1
            topic = self._impressions_topic
        else:
            self._clicks += 1
            topic = self._clicks_topic
        self._writer.send(topic, partition, key, encode(event), timestamp_ms=known_ms)

    def _tell(self, progress: Progress | None) -> None:
        if progress:
            first = self._replay.first
            progress(min(self._following, self._replay.end) - first, self._replay.end - first)

    def _write_mark(self, ts: int) -> None:
        # after a resume, the marks of the run before may be further on
        self._mark = max(self._mark, ts)
        self._marker.mark(self._mark)
        self._unmarked = 0
        if self.lead is not None:
            self.lead.marked(self._mark, self._following - self._resumed_at)

    def _keep(self) -> None:
        ends = self._writer.ends()
        self._position = msgspec.structs.replace(
            self._position,
            following=self._following,
            # a mark has gone to every partition of both
            offsets={name: ends[name] for name in (self._impressions_topic, self._clicks_topic)},
            mark=self._mark,
        )
        self._file.write(self._position)

    def _last_mark(self) -> int:
        replay, settings = self._replay, self._replay.settings
        closing = (
            time_of(replay.log, replay.end - 1)
            + settings.log.attribution_ms
            + settings.flink.out_of_orderness_ms
            + settings.flink.deadline_ms
            + _CLOSING_MARGIN_MS
        )
        if replay.close:
            return closing
        return min(closing, time_of(replay.log, replay.end) - 1)


def _text(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
