"""Accounts for every event (promise 1): matches the event topics with their outcomes.

Each impression and click has a place (partition, offset) in its topic. Its outcome names that
place: a shown record, an action record or a dead letter. The ledger matches the two. An event
without an outcome is *open*; it is *overdue*, that is lost, once the watermark of the samples has
passed the time at which its outcome was due. A place that is named twice makes the sum wrong.
Actions of a kind that is for features only are in no sample: they are counted as such once their
time has passed.

The count is kept (``STATE/ledger.json``), and the next one reads only what has come since.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from kafka import KafkaAdminClient
from kafka.consumer.fetcher import ConsumerRecord

from inttower.core.durable_files import write_atomic
from settings.errors import EventError
from settings.log_settings import DEFAULT_ACTION
from settings.settings import Settings
from streaming.events import is_mark
from streaming.kafka import topics
from streaming.kafka.client import admin, end_offsets, partitions
from streaming.kafka.open_places import OpenPlaces
from streaming.kafka.span import read_span
from streaming.kafka.sums import Sums, quantile_ms

_NO_TIME = -1
_EVENTS = (topics.IMPRESSIONS, topics.CLICKS)
# dead letters that have a sum of their own, by topic
_APART = {topics.IMPRESSIONS: ("duplicate",), topics.CLICKS: ("unmatched", "repeated")}


class _Saved(msgspec.Struct, kw_only=True):
    """A count so far, by the design's topic names.

    ``open`` has the offset and the due time of each open place by topic and partition, the due
    time negative for an action that is for features only. ``late`` counts late events by the bit
    length of their lateness in ms. ``ranked`` has hashes of requests of which nothing was shown.
    """

    identities: dict[str, str]
    offsets: dict[str, dict[int, int]]
    produced: dict[str, int]
    shown: int
    actions: int
    letters: dict[str, dict[str, int]]
    watermarks: dict[int, int]
    late: dict[int, int]
    latest_ms: int
    rankings: int
    ranked: set[int]
    open: dict[str, dict[int, list[tuple[int, int]]]]


class _Outcome(msgspec.Struct):
    """The fields of a record among the samples that a count needs."""

    watermark: int | None = None
    impression_at: tuple[int, int] | None = None
    click_at: tuple[int, int] | None = None


class _Letter(msgspec.Struct):
    topic: str
    partition: int
    offset: int
    reason: str


class _Event(msgspec.Struct):
    # whatever an application wrote: what does not fit is a dead letter
    ts: Any = None
    action: Any = None
    request_id: Any = None


class _Ranked(msgspec.Struct):
    request_id: str


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
        # ends of the outcomes first: the events that they name are before the ends taken afterwards
        outcomes = _ends(settings, client, (topics.SAMPLES, topics.DEAD_LETTERS), committed=True)
        events = _ends(settings, client, _EVENTS, committed=False)
        rankings = _ends(settings, client, (topics.RANKINGS,), committed=False)
    ledger.read_rankings(rankings)
    ledger.read_events(events)
    ledger.read_outcomes(outcomes)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, msgspec.json.encode(ledger.to_save()), durable=False)
    return ledger.sums()


def _foreign(
    record: ConsumerRecord, topic: str, writer: str, counted: str, error: Exception
) -> EventError:
    return EventError(
        f"{topic}, partition {record.partition}, offset {record.offset} was not written by"
        f" {writer} ({error}): the {counted} cannot be counted",
        reason="schema",
    )


def _identities(settings: Settings, client: KafkaAdminClient) -> dict[str, str]:
    """Ids of these topics: those made after a reset have the same names and other ids."""
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
        shown=0,
        actions=0,
        letters={topic: {} for topic in _EVENTS},
        watermarks={},
        late={},
        latest_ms=0,
        rankings=0,
        ranked=set(),
        open={topic: {} for topic in _EVENTS},
    )


_Ends = dict[str, dict[int, int]]


def _ends(
    settings: Settings, client: KafkaAdminClient, names: tuple[str, ...], *, committed: bool
) -> _Ends:
    return {n: end_offsets(client, settings.topic(n), committed=committed) for n in names}


class _Ledger:
    def __init__(self, settings: Settings, saved: _Saved) -> None:
        self._settings = settings
        self._saved = saved
        self._open = {
            topic: {p: OpenPlaces(places) for p, places in saved.open[topic].items()}
            for topic in _EVENTS
        }
        self._letters = {topic: Counter(saved.letters[topic]) for topic in _EVENTS}
        self._event = msgspec.json.Decoder(_Event)
        self._unlabelled = {n for n, k in settings.log.actions.items() if k.label is None}

    def read_rankings(self, ends: _Ends) -> None:
        """Take in rankings up to these offsets."""
        ranking = msgspec.json.Decoder(_Ranked)

        def take(topic: str, record: ConsumerRecord) -> None:
            self._saved.rankings += 1
            try:
                self._saved.ranked.add(_hashed(ranking.decode(record.value or b"").request_id))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise _foreign(record, topic, "a server", "rankings", error) from error

        self._read(ends, take, committed=False)

    def read_events(self, ends: _Ends) -> None:
        """Take in impressions and clicks up to these offsets."""
        with admin(self._settings) as client:
            for topic in _EVENTS:
                for partition in partitions(client, self._settings.topic(topic)):
                    self._open[topic].setdefault(partition, OpenPlaces([]))
        flink = self._settings.flink

        def take(topic: str, record: ConsumerRecord) -> None:
            value = record.value or b""
            if is_mark(value):
                return
            self._saved.produced[topic] += 1
            event = self._fields(value)
            due = record.timestamp + flink.out_of_orderness_ms
            if topic == topics.CLICKS:
                due += flink.deadline_ms
                if (event.action or DEFAULT_ACTION) in self._unlabelled:
                    due = -due
            elif isinstance(event.request_id, str):
                self._saved.ranked.discard(_hashed(event.request_id))
            self._open[topic][record.partition].add(record.offset, due)
            if isinstance(event.ts, int) and 0 <= event.ts < 2**63:
                self._take_lateness(record.timestamp - event.ts)

        self._read(ends, take, committed=False)
        self._settle()

    def _take_lateness(self, late_ms: int) -> None:
        if late_ms > self._settings.flink.out_of_orderness_ms:
            late = self._saved.late
            late[late_ms.bit_length()] = late.get(late_ms.bit_length(), 0) + 1
            self._saved.latest_ms = max(self._saved.latest_ms, late_ms)

    def _fields(self, value: bytes) -> _Event:
        try:
            return self._event.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _Event()

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
                raise _foreign(record, topic, "this job", "sums", error) from error

        self._read(ends, take, committed=True)
        for partition in ends[topics.SAMPLES]:
            saved.watermarks.setdefault(partition, _NO_TIME)
        self._settle()

    def _take_sample(self, outcome: _Outcome, partition: int) -> None:
        saved = self._saved
        if outcome.watermark is not None:
            saved.watermarks[partition] = max(
                outcome.watermark, saved.watermarks.get(partition, _NO_TIME)
            )
        elif outcome.click_at is not None:
            saved.actions += 1
            at, offset = outcome.click_at
            self._open[topics.CLICKS][at].cross_out(offset)
        elif outcome.impression_at is not None:
            saved.shown += 1
            at, offset = outcome.impression_at
            self._open[topics.IMPRESSIONS][at].cross_out(offset)

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
        watermark = min(saved.watermarks.values(), default=_NO_TIME)
        features_only = sum(
            one.features_only(watermark) for one in self._open[topics.CLICKS].values()
        )
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
        clicks["open"] -= features_only
        return Sums(
            impressions={
                "produced": saved.produced[topics.IMPRESSIONS],
                "shown": saved.shown,
                **impressions,
            },
            clicks={
                "produced": saved.produced[topics.CLICKS],
                "actions": saved.actions,
                "features_only": features_only,
                **clicks,
            },
            reasons=dict(sum(self._letters.values(), Counter())),
            overdue=sum(
                one.overdue(watermark) for found in self._open.values() for one in found.values()
            ),
            late={
                "events": sum(saved.late.values()),
                "p50_ms": quantile_ms(saved.late, 0.5, saved.latest_ms),
                "p95_ms": quantile_ms(saved.late, 0.95, saved.latest_ms),
                "max_ms": saved.latest_ms,
            },
            rankings={"written": saved.rankings, "without_impression": len(saved.ranked)},
        )


def _hashed(request_id: str) -> int:
    digest = hashlib.blake2b(request_id.encode(errors="surrogatepass"), digest_size=7).digest()
    return int.from_bytes(digest, "big")
