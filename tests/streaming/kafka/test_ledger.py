"""The sums of promise 1, counted on real topics whose records are written by hand."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord

from settings.errors import EventError
from settings.settings import Settings
from streaming.events import Click, DeadLetter, Impression, TimeMark, encode
from streaming.kafka import ledger, span, topics
from streaming.kafka.client import create_topics, delete_topics, producer
from streaming.kafka.ledger import count_events
from streaming.kafka.sums import Sums
from streaming.kafka.time_marks import EVENT_TOPICS

T = 978_300_760_000
NEEDED = (*EVENT_TOPICS, topics.RANKINGS, topics.SAMPLES, topics.DEAD_LETTERS)
Place = tuple[int, int]


class Topics:
    """Writes what an application and the job would write; both by hand."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        needed = {settings.topic(name) for name in NEEDED}
        create_topics(settings, [t for t in topics.all_topics(settings) if t.name in needed])
        self._producer = producer(settings)

    def close(self) -> None:
        self._producer.close()

    def put(self, topic: str, value: bytes | None, partition: int = 0, known: int = T + 5) -> Place:
        """Write one record; where it lies."""
        name = self.settings.topic(topic)
        at = self._producer.send(
            name, value, key=b"k", partition=partition, timestamp_ms=known
        ).get(10)
        return at.partition, at.offset

    def impression(self, ts: int = T, partition: int = 0, request: str = "r") -> Place:
        event = Impression(request_id=request, user_id="u", item_id="i", ts=ts)
        return self.put(topics.IMPRESSIONS, encode(event), partition)

    def click(self, ts: int = T, partition: int = 0, action: str | None = None) -> Place:
        event = Click(event_id="e", user_id="u", item_id="i", ts=ts, action=action)
        return self.put(topics.CLICKS, encode(event), partition)

    def event(self, topic: str, ts: int = T, partition: int = 0) -> Place:
        return (self.impression if topic == topics.IMPRESSIONS else self.click)(ts, partition)

    def marks(self, ts: int) -> None:
        for topic in EVENT_TOPICS:
            for partition in range(self.settings.kafka.partitions):
                self.put(topic, encode(TimeMark(time_mark=ts)), partition)

    def shown(self, impression: Place, partition: int = 0) -> None:
        self.put(topics.SAMPLES, shown(impression), partition)

    def acted(self, impression: Place, click: Place, partition: int = 0) -> None:
        fields = {"action_at": T + 6, "impression_at": impression, "click_at": click}
        self.put(topics.SAMPLES, msgspec.json.encode(fields), partition)

    def watermark(self, ts: int, *partitions: int) -> None:
        for partition in partitions or range(self.settings.flink.parallelism):
            self.put(topics.SAMPLES, b'{"watermark":%d}' % ts, partition)

    def letter(self, topic: str, at: Place, reason: str) -> None:
        self.put(topics.DEAD_LETTERS, letter(topic, at, reason))


def shown(impression: Place) -> bytes:
    fields: dict[str, Any] = {
        "shown_at": T,
        "request_id": "r",
        "ts": T,
        "features": {"user_clicks": 3},
        "impression_at": impression,
    }
    return msgspec.json.encode(fields)


def letter(topic: str, at: Place, reason: str) -> bytes:
    made = DeadLetter(topic=topic, partition=at[0], offset=at[1], reason=reason, value=b"\xff")
    return encode(made)


@pytest.fixture
def written(cluster: Settings) -> Iterator[Topics]:
    actions = {"click": {"label": 1}, "open": {}}
    made = Topics(cluster.with_changes(flink={"parallelism": 2}, log={"actions": actions}))
    yield made
    made.close()


def count(written: Topics) -> Sums:
    return count_events(written.settings)


def test_each_event_is_found_in_one_sum(written: Topics) -> None:
    w = written
    w.marks(T - 1)
    clicked, joined = w.impression(partition=1), w.click(partition=1)
    ignored, twice, broken = w.impression(), w.impression(), w.put(topics.IMPRESSIONS, b"\xff{")
    w.impression()  # open
    no_mark = w.put(topics.IMPRESSIONS, b'{"time_mark":null}')
    unmatched, repeated, too_late, nothing = w.click(), w.click(), w.click(), w.click(partition=1)
    w.click(partition=1)  # open
    w.click(action="open")  # for features only, once its time has passed
    w.marks(T + 10)
    w.shown(clicked)
    w.acted(clicked, joined, partition=1)
    w.shown(ignored, partition=1)
    w.letter(topics.IMPRESSIONS, twice, "duplicate")
    w.letter(topics.IMPRESSIONS, broken, "malformed_json")
    w.letter(topics.IMPRESSIONS, no_mark, "missing_field")
    w.letter(topics.CLICKS, unmatched, "unmatched")
    w.letter(topics.CLICKS, repeated, "repeated")
    w.letter(topics.CLICKS, too_late, "too_late")
    w.letter(topics.CLICKS, nothing, "bad_id")
    w.watermark(T)
    sums = count(w)
    expected = {
        "impressions": {"produced": 6, "shown": 2, "open": 1, "duplicate": 1, "dead_letters": 2},
        "clicks": {
            **{"produced": 7, "actions": 1, "features_only": 0, "open": 2},
            **{"unmatched": 1, "repeated": 1, "dead_letters": 2},
        },
        "reasons": {
            **{"duplicate": 1, "malformed_json": 1, "missing_field": 1},
            **{"unmatched": 1, "repeated": 1, "too_late": 1, "bad_id": 1},
        },
        "overdue": 0,
        "late": {"events": 0, "p50_ms": 0, "p95_ms": 0, "max_ms": 0},
        "rankings": {"written": 0, "without_impression": 0},
        "balances": True,
    }
    assert sums.to_json() == expected
    w.watermark(over(w, topics.CLICKS))
    sums = count(w)
    assert (sums.clicks["features_only"], sums.clicks["open"]) == (1, 1)
    assert sums.overdue == 2


def over(written: Topics, topic: str) -> int:
    """The watermark by which an event that arrived at T + 5 must have become something."""
    flink = written.settings.flink
    due = T + 5 + flink.out_of_orderness_ms
    return due if topic == topics.IMPRESSIONS else due + flink.deadline_ms


def test_late_events_are_counted_by_how_late_they_were(written: Topics) -> None:
    slack = written.settings.flink.out_of_orderness_ms
    for behind in [slack - 5, 60_000, 60_000, 3_600_000]:
        written.impression(T - behind)
    written.put(topics.CLICKS, b'{"ts":1%s}' % (b"0" * 400))
    late = count(written).late
    assert late == {"events": 3, "p50_ms": 65_536, "p95_ms": 3_600_005, "max_ms": 3_600_005}


def test_rankings_of_which_nothing_was_shown_are_counted(written: Topics) -> None:
    for request in ("shown", "shown twice", "not", "later"):
        written.put(topics.RANKINGS, msgspec.json.encode({"request_id": request, "items": []}))
    for request in ("shown", "shown twice", "shown twice", "never ranked"):
        written.impression(request=request)
    assert count(written).rankings == {"written": 4, "without_impression": 2}
    written.impression(request="later")
    assert count(written).rankings == {"written": 4, "without_impression": 1}


class Fates:
    """Gives events made-up fates and knows what the sums must be."""

    def __init__(self, written: Topics, rng: random.Random) -> None:
        self._written = written
        self._rng = rng
        self._open: list[tuple[str, Place]] = []
        self.impressions = Counter(produced=0, shown=0, open=0, duplicate=0, dead_letters=0)
        self.clicks = Counter(
            **{"produced": 0, "actions": 0, "features_only": 0, "open": 0},
            **{"unmatched": 0, "repeated": 0, "dead_letters": 0},
        )

    def step(self) -> None:
        """An event more, or one whose fate becomes known."""
        rng, w = self._rng, self._written
        if rng.random() < 0.1:
            w.marks(T)
        if rng.random() < 0.6 or not self._open:
            topic = rng.choice((topics.IMPRESSIONS, topics.CLICKS))
            self._open.append((topic, w.event(topic, partition=rng.randrange(2))))
            self._of(topic).update(produced=1, open=1)
            return
        topic, place = self._open.pop(rng.randrange(len(self._open)))
        sums = self._of(topic)
        sums["open"] -= 1
        if topic == topics.CLICKS and rng.random() < 0.5:
            w.acted((0, 0), place, partition=rng.randrange(2))
            sums["actions"] += 1
        elif topic == topics.CLICKS:
            reason = rng.choice(("unmatched", "repeated", "too_late", "bad_id"))
            w.letter(topic, place, reason)
            sums[reason if reason in sums else "dead_letters"] += 1
        elif rng.random() < 0.2:
            w.letter(topic, place, "duplicate")
            sums["duplicate"] += 1
        else:
            w.shown(place, partition=rng.randrange(2))
            sums["shown"] += 1

    def _of(self, topic: str) -> Counter[str]:
        return self.impressions if topic == topics.IMPRESSIONS else self.clicks


def test_counts_one_after_the_other_are_the_count_at_once(written: Topics) -> None:
    fates = Fates(written, random.Random(4))
    for _ in range(5):
        for _ in range(40):
            fates.step()
        found = count(written)
        assert found.impressions == fates.impressions
        assert found.clicks == fates.clicks
        assert found.balances
    (written.settings.state / "ledger.json").unlink()
    assert count(written) == found


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[ConsumerRecord]:
    """What counts have read from the broker."""
    seen: list[ConsumerRecord] = []
    really = span.read_span

    def noted(*args: Any, **kwargs: Any) -> Iterator[ConsumerRecord]:
        for record in really(*args, **kwargs):
            seen.append(record)
            yield record

    monkeypatch.setattr(ledger, "read_span", noted)
    return seen


def test_the_next_count_reads_only_what_is_new(written: Topics, read: list[ConsumerRecord]) -> None:
    places = [written.impression() for _ in range(20)]
    for place in places[:10]:
        written.shown(place)
    count(written)
    assert len(read) == 30
    read.clear()
    assert count(written).impressions["open"] == 10
    assert read == []
    click = written.click()
    written.shown(places[10])
    written.acted(places[10], click)
    sums = count(written)
    assert (sums.impressions["open"], sums.clicks["actions"], sums.balances) == (9, 1, True)
    assert len(read) == 3


def test_a_damaged_or_older_count_is_made_anew(written: Topics) -> None:
    written.shown(written.impression())
    before = count(written)
    path = written.settings.state / "ledger.json"
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:-9],
        b"[]",
        b'{"identities":{}}',
        b"\xff",
        b'{"offsets":{"\xff":1}}',
    ):
        path.write_bytes(content)
        assert count(written) == before
        assert path.read_bytes() == whole


def test_topics_made_anew_are_counted_anew(written: Topics) -> None:
    for _ in range(5):
        written.shown(written.impression())
    assert count(written).impressions["shown"] == 5
    written.close()
    delete_topics(written.settings)
    anew = Topics(written.settings)
    for _ in range(7):  # more than before, so that no offset gives it away
        place = anew.impression()
    anew.shown(place)
    sums = count(anew)
    anew.close()
    assert (sums.impressions["produced"], sums.impressions["shown"]) == (7, 1)
    assert sums.balances


def test_a_sample_written_twice_is_seen(written: Topics) -> None:
    place = written.impression()
    written.shown(place)
    assert count(written).balances
    written.shown(place, partition=1)
    sums = count(written)
    assert (sums.impressions["shown"], sums.balances) == (2, False)


def test_an_action_written_twice_is_seen(written: Topics) -> None:
    click = written.click()
    for _ in range(2):
        written.acted((0, 0), click)
    sums = count(written)
    assert (sums.clicks["actions"], sums.balances) == (2, False)


def test_a_sample_of_an_event_that_nobody_produced_is_seen(written: Topics) -> None:
    written.marks(T)
    written.shown((0, 0))  # the mark's place
    assert not count(written).balances


@pytest.mark.parametrize("topic", [topics.IMPRESSIONS, topics.CLICKS])
def test_an_event_without_outcome_is_overdue_once_the_watermark_has_passed(
    written: Topics, topic: str
) -> None:
    place = written.event(topic)
    due = over(written, topic)
    for marks in ([(due - 1, 0), (due - 1, 1)], [(due, 0)]):
        for ts, partition in marks:
            written.watermark(ts, partition)
        sums = count(written)
        assert (sums.overdue, sums.balances) == (0, True)
    written.watermark(due, 1)
    sums = count(written)
    assert (sums.overdue, sums.balances) == (1, False)
    assert count(written) == sums
    written.letter(topic, place, "unmatched")
    assert count(written).balances


# what an application may write by mistake, of any size and depth
ODD = [
    None,
    b"",
    b"\xff\xfe",
    b"null",
    b'{"ts":"now"}',
    b'{"ts":9223372036854775808}',
    b'{"ts":-9223372036854775809}',
    b'{"ts":1%s}' % (b"0" * 400),
    b'{"time_mark":1%s}' % (b"0" * 400),
    b'{"a":' * 50_000,
    b'{"time_mark":' * 50_000,
    b"[" * 50_000,
]


def test_no_record_of_an_application_stops_the_count(written: Topics) -> None:
    places = [written.put(topics.CLICKS, value) for value in ODD]
    sums = count(written)
    assert (sums.clicks["produced"], sums.clicks["open"]) == (len(ODD), len(ODD))
    for place in places:
        written.letter(topics.CLICKS, place, "malformed_json")
    written.watermark(T)
    sums = count(written)
    assert sums.clicks["dead_letters"] == len(ODD)
    assert sums.balances


def in_transaction(settings: Settings, name: str) -> KafkaProducer:
    made = KafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap,
        transactional_id=settings.topic(name),
        allow_auto_create_topics=False,
        metrics_enabled=False,
    )
    made.init_transactions()
    made.begin_transaction()
    return made


def test_only_what_is_committed_counts(written: Topics) -> None:
    place, other = written.impression(), written.impression(partition=1)
    samples = written.settings.topic(topics.SAMPLES)
    letters = written.settings.topic(topics.DEAD_LETTERS)
    job = in_transaction(written.settings, "job")
    job.send(samples, shown(place), partition=0)
    job.send(letters, letter(topics.IMPRESSIONS, other, "duplicate"), partition=0)
    job.flush()
    untouched = {"produced": 2, "shown": 0, "open": 2, "duplicate": 0, "dead_letters": 0}
    assert count(written).impressions == untouched  # open, and does not make it wait
    job.abort_transaction()
    assert count(written).impressions == untouched
    job.begin_transaction()
    job.send(samples, shown(place), partition=1)
    job.send(letters, letter(topics.IMPRESSIONS, other, "duplicate"), partition=0)
    job.commit_transaction()
    job.close()
    sums = count(written)
    assert sums.impressions == {**untouched, "shown": 1, "open": 0, "duplicate": 1}
    assert sums.balances


@pytest.mark.parametrize(
    ("topic", "value"),
    [
        (topics.SAMPLES, b"not JSON"),
        (topics.SAMPLES, b'{"impression_at":[7,0]}'),
        (topics.DEAD_LETTERS, letter("somewhere", (0, 0), "late")),
    ],
)
def test_what_the_job_did_not_write_is_named(written: Topics, topic: str, value: bytes) -> None:
    written.put(topic, value)
    with pytest.raises(EventError, match=f"{topic}, partition 0, offset 0 was not written by"):
        count(written)
    assert not (written.settings.state / "ledger.json").exists()
