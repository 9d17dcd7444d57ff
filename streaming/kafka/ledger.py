"""What became of every event: the sums of promise 1, counted from what lies on the topics.

Each impression and click lies at a place (partition, offset) of its topic, and what becomes of it
names that place: a sample those of its impression and its click, a dead letter that of the refused
record. So the ledger crosses out places. What nothing has named yet is *open*; what is open
although the samples' frontier has passed its attribution window is *overdue*: lost, or a late
record that the job has not come to yet. A place that is named twice makes the sum wrong.

The count is kept (``STATE/ledger.json``), and the next one reads only what has come since.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from kafka import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord
from numpy.typing import NDArray

from inttower.core.durable_files import write_atomic
from settings.errors import EventError
from settings.settings import Settings
from streaming.events import Impression, TimeMark, decode_event
from streaming.kafka import topics
from streaming.kafka.client import admin, end_offsets, partitions
from streaming.kafka.span import read_span

_MARK_KEY = b'"time_mark"'
_NO_TIME = -1
_EVENTS = (topics.IMPRESSIONS, topics.CLICKS)
LATE = "late"
# dead letters that have a sum of their own, by topic
_APART = {topics.IMPRESSIONS: (LATE,), topics.CLICKS: (LATE, "unmatched", "repeated")}


@dataclass(frozen=True, slots=True)
class Sums:
    """What became of the events.

    Attributes:
        impressions: produced = samples + open + late + dead_letters.
        clicks: produced = joined + unmatched + repeated + late + dead_letters + open.
        reasons: dead letters of either topic by reason code.
        overdue: open although their time is over; see the module.
    """

    impressions: dict[str, int]
    clicks: dict[str, int]
    reasons: dict[str, int]
    overdue: int

    @property
    def balances(self) -> bool:
        """Whether both sums add up and nothing is overdue."""
        return not self.overdue and all(
            sums["produced"] == sum(n for name, n in sums.items() if name != "produced")
            for sums in (self.impressions, self.clicks)
        )

    def to_json(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        return {
            "impressions": self.impressions,
            "clicks": self.clicks,
            "reasons": self.reasons,
            "overdue": self.overdue,
            "balances": self.balances,
        }


class _Saved(msgspec.Struct, kw_only=True):
    """A count so far, by the design's topic names.

    ``open`` has the offset and the time of each open place, by topic and partition.
    """

    identities: dict[str, str]
    offsets: dict[str, dict[int, int]]
    produced: dict[str, int]
    samples: int
    joined: int
    letters: dict[str, dict[str, int]]
    frontiers: dict[int, int]
    open: dict[str, dict[int, list[tuple[int, int]]]]


class _Outcome(msgspec.Struct):
    """The fields of a sample or a time mark among the samples that a count needs."""

    frontier: int | None = None
    impression_at: tuple[int, int] | None = None
    click_at: tuple[int, int] | None = None


class _Letter(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    reason: str


class _Timed(msgspec.Struct):
    # whatever an application wrote must fit an array of int64
    ts: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] = _NO_TIME


def count_events(settings: Settings) -> Sums:
    """Count what the topics got since the last count, and add it up.

    Raises:
        BrokerError: no broker, or it stops answering.
        EventError: the sample topic or the dead letters hold something that the job did not write.
    """
    path = settings.state.absolute() / "ledger.json"
    with admin(settings) as client:
        identities = _identities(settings, client)
        saved = _read(path)
        if saved is None or saved.identities != identities:
            saved = _nothing(identities)
        ledger = _Ledger(settings, saved)
        # outcomes first: what one of these names lies before the end of the events taken after it
        outcomes = _ends(settings, client, (topics.SAMPLES, topics.DEAD_LETTERS), committed=True)
        events = _ends(settings, client, _EVENTS, committed=False)
    ledger.read_events(events)
    ledger.read_outcomes(outcomes)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.encode(ledger.to_save()), durable=False)
    return ledger.sums()


def _identities(settings: Settings, client: KafkaAdminClient) -> dict[str, str]:
    """What tells these topics from others of the same names that were there before a reset."""
    wanted = (*_EVENTS, topics.SAMPLES, topics.DEAD_LETTERS)
    names = {settings.topic(name): name for name in wanted}
    found = client.describe_topics(list(names))
    return {names[t["name"]]: str(t["topic_id"]) for t in found if t["name"] in names}


def _read(path: Path) -> _Saved | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Saved)
    except FileNotFoundError:
        return None
    # damaged, or of another version: everything can be counted again
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _nothing(identities: dict[str, str]) -> _Saved:
    return _Saved(
        identities=identities,
        offsets={},
        produced=dict.fromkeys(_EVENTS, 0),
        samples=0,
        joined=0,
        letters={topic: {} for topic in _EVENTS},
        frontiers={},
        open={topic: {} for topic in _EVENTS},
    )


_Ends = dict[str, dict[int, int]]


def _ends(
    settings: Settings, client: KafkaAdminClient, names: tuple[str, ...], *, committed: bool
) -> _Ends:
    return {n: end_offsets(client, settings.topic(n), committed=committed) for n in names}


class _Open:
    """Open places of one partition: offsets in rising order, and the events' times."""

    def __init__(self, places: list[tuple[int, int]]) -> None:
        self._new: list[tuple[int, int]] = places
        self._offsets: NDArray[np.int64] = np.zeros(0, np.int64)
        self._times: NDArray[np.int64] = np.zeros(0, np.int64)
        self._crossed: list[int] = []

    def add(self, offset: int, ts: int) -> None:
        self._new.append((offset, ts))

    def cross_out(self, offset: int) -> None:
        self._crossed.append(offset)

    def settle(self) -> None:
        """Bring what was added and crossed out into the arrays."""
        if self._new:
            new = np.array(self._new, np.int64)
            self._offsets = np.concatenate([self._offsets, new[:, 0]])
            self._times = np.concatenate([self._times, new[:, 1]])
            self._new = []
        left = ~np.isin(self._offsets, np.array(self._crossed, np.int64))
        self._offsets, self._times, self._crossed = self._offsets[left], self._times[left], []

    def __len__(self) -> int:
        return len(self._offsets)

    def before(self, ts: int) -> int:
        """How many happened at or before a time; those without a time never did."""
        return int(((self._times != _NO_TIME) & (self._times <= ts)).sum())

    def places(self) -> list[tuple[int, int]]:
        return list(zip(self._offsets.tolist(), self._times.tolist(), strict=True))


class _Ledger:
    def __init__(self, settings: Settings, saved: _Saved) -> None:
        self._settings = settings
        self._saved = saved
        self._open = {
            topic: {p: _Open(places) for p, places in saved.open[topic].items()}
            for topic in _EVENTS
        }
        self._letters = {topic: Counter(saved.letters[topic]) for topic in _EVENTS}
        self._timed = msgspec.json.Decoder(_Timed)

    def read_events(self, ends: _Ends) -> None:
        """Take in impressions and clicks up to these offsets."""
        with admin(self._settings) as client:
            for topic in _EVENTS:
                for partition in partitions(client, self._settings.topic(topic)):
                    self._open[topic].setdefault(partition, _Open([]))

        def take(topic: str, record: ConsumerRecord) -> None:
            value = record.value or b""
            if _MARK_KEY in value and self._is_mark(topic, record):
                return
            self._saved.produced[topic] += 1
            self._open[topic][record.partition].add(record.offset, self._time(value))

        self._read(ends, take, committed=False)
        self._settle()

    def _is_mark(self, topic: str, record: ConsumerRecord) -> bool:
        ahead = self._settings.flink.max_ahead_ms
        # a valid mark is the same in either topic
        try:
            event = decode_event(
                Impression, record.value, record_ms=record.timestamp, max_ahead_ms=ahead
            )
        except EventError:
            return False
        return isinstance(event, TimeMark)

    def _time(self, value: bytes) -> int:
        try:
            return self._timed.decode(value).ts
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _NO_TIME

    def read_outcomes(self, ends: _Ends) -> None:
        """Take in samples and dead letters up to these offsets."""
        outcome = msgspec.json.Decoder(_Outcome)
        letter = msgspec.json.Decoder(_Letter)
        names = {self._settings.topic(topic): topic for topic in _EVENTS}
        saved = self._saved

        def take(topic: str, record: ConsumerRecord) -> None:
            try:
                if topic == topics.SAMPLES:
                    self._take_sample(outcome.decode(record.value), record.partition)
                else:
                    found = letter.decode(record.value)
                    of = names.get(found.topic, found.topic)
                    self._letters[of][found.reason] += 1
                    self._open[of][found.partition].cross_out(found.offset)
            except (msgspec.MsgspecError, KeyError) as error:
                raise EventError(
                    f"{topic}, partition {record.partition}, offset {record.offset} was not"
                    f" written by this job ({error}): the sums cannot be counted",
                    reason="schema",
                ) from error

        self._read(ends, take, committed=True)
        for partition in ends[topics.SAMPLES]:
            saved.frontiers.setdefault(partition, _NO_TIME)
        self._settle()

    def _take_sample(self, outcome: _Outcome, partition: int) -> None:
        saved = self._saved
        if outcome.frontier is not None:
            saved.frontiers[partition] = max(
                outcome.frontier, saved.frontiers.get(partition, _NO_TIME)
            )
        if outcome.impression_at is not None:
            saved.samples += 1
            at, offset = outcome.impression_at
            self._open[topics.IMPRESSIONS][at].cross_out(offset)
        if outcome.click_at is not None:
            saved.joined += 1
            at, offset = outcome.click_at
            self._open[topics.CLICKS][at].cross_out(offset)

    def _settle(self) -> None:
        for by_partition in self._open.values():
            for one in by_partition.values():
                one.settle()

    def _read(
        self, ends: _Ends, take: Callable[[str, ConsumerRecord], None], *, committed: bool
    ) -> None:
        names = {self._settings.topic(name): name for name in ends}
        kept = self._saved.offsets
        start, end = {}, {}
        for name, by_partition in ends.items():
            for partition, offset in by_partition.items():
                at = self._settings.topic(name), partition
                start[at], end[at] = kept.get(name, {}).get(partition, 0), offset
        for record in read_span(self._settings, start, end, committed=committed):
            take(names[record.topic], record)
        for name, by_partition in ends.items():
            kept[name] = {**kept.get(name, {}), **by_partition}

    def to_save(self) -> _Saved:
        """The count as it is kept."""
        saved = self._saved
        saved.letters = {topic: dict(found) for topic, found in self._letters.items()}
        saved.open = {
            topic: {p: one.places() for p, one in found.items()}
            for topic, found in self._open.items()
        }
        return saved

    def sums(self) -> Sums:
        """The sums of the count."""
        saved = self._saved
        frontier = min(saved.frontiers.values(), default=_NO_TIME)
        passed = frontier - self._settings.log.closing_delay_ms
        impressions, clicks = (
            {
                "open": sum(len(one) for one in self._open[topic].values()),
                **{name: self._letters[topic][name] for name in _APART[topic]},
                "dead_letters": sum(
                    n for reason, n in self._letters[topic].items() if reason not in _APART[topic]
                ),
            }
            for topic in _EVENTS
        )
        return Sums(
            impressions={
                "produced": saved.produced[topics.IMPRESSIONS],
                "samples": saved.samples,
                **impressions,
            },
            clicks={"produced": saved.produced[topics.CLICKS], "joined": saved.joined, **clicks},
            reasons=dict(sum(self._letters.values(), Counter())),
            overdue=sum(
                one.before(passed) for found in self._open.values() for one in found.values()
            ),
        )
