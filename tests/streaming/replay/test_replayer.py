from __future__ import annotations

import functools
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.events import Impression, TimeMark
from streaming.kafka import topics
from streaming.kafka.client import admin, create_topics, end_offsets
from streaming.kafka.time_marks import Marker
from streaming.kafka.writer import Writer
from streaming.logs import Event
from streaming.replay.replayer import Replayer, number_at, time_of
from tests.streaming.job_process import until
from tests.streaming.made_up import (
    assert_marks_are_true,
    events_of,
    expected,
    made_up_log,
    read_events,
)

LOG = made_up_log(600)


def test_every_event_arrives_once_in_order_with_true_marks(cluster: Settings) -> None:
    done = Replayer(cluster, LOG).run()
    records = read_events(cluster)
    assert events_of(records) == expected(cluster, list(LOG.events()))
    assert_marks_are_true(records)
    assert done.finished
    assert done.impressions + done.clicks == LOG.count


def test_the_last_mark_closes_every_sample(cluster: Settings) -> None:
    Replayer(cluster, LOG).run()
    closing = LOG.span[1] + cluster.log.attribution_ms + cluster.flink.deadline_ms
    for sequence in read_events(cluster).values():
        last = sequence[-1]
        assert isinstance(last, TimeMark)
        assert last.time_mark > closing


def test_the_catalogue_comes_first(cluster: Settings) -> None:
    seen: list[dict[int, int]] = []

    def look(event: Event) -> Event:
        if not seen:
            with admin(cluster) as client:
                seen.extend(
                    end_offsets(client, cluster.topic(name))
                    for name in (topics.ITEMS, topics.USERS)
                )
        return event

    Replayer(cluster, LOG, stop=10).run(transform=look)
    assert seen == [{0: len(list(LOG.items()))}, {0: len(list(LOG.users()))}]


def test_a_stretch_leaves_room_for_what_follows(cluster: Settings) -> None:
    middle = number_at(LOG, "0.5")
    Replayer(cluster, LOG, stop=middle).run()
    newest = max(
        event.time_mark
        for sequence in read_events(cluster).values()
        for event in sequence
        if isinstance(event, TimeMark)
    )
    assert newest < time_of(LOG, middle)
    # the rest follows where the first stretch ended, whether it says so or not
    done = Replayer(cluster, LOG, first=middle).run()
    assert done.resumed_at == middle
    records = read_events(cluster)
    assert events_of(records) == expected(cluster, list(LOG.events()))
    assert_marks_are_true(records)


def test_stopped_and_resumed_at_the_same_record(cluster: Settings) -> None:
    count = 0

    def stop_soon(event: Event) -> Event:
        nonlocal count
        count += 1
        if count == 100:
            replay.stop()
        return event

    replay = Replayer(cluster, LOG)
    done = replay.run(transform=stop_soon)
    assert not done.finished
    assert done.impressions + done.clicks == 100
    again = Replayer(cluster, LOG).run()
    assert again.resumed_at == 100
    assert events_of(read_events(cluster)) == expected(cluster, list(LOG.events()))
    # and once more has nothing left to do
    nothing = Replayer(cluster, LOG).run()
    assert nothing.impressions + nothing.clicks == 0
    assert events_of(read_events(cluster)) == expected(cluster, list(LOG.events()))


RUNNER = """
import sys
from pathlib import Path
from settings.settings import Settings
import streaming.replay.replayer
from tests.streaming.made_up import made_up_log
# positions so often that kills fall before, in, and after the writing of one
streaming.replay.replayer._POSITION_S = 0.05
print("ready", flush=True)
streaming.replay.replayer.Replayer(Settings.read(Path(sys.argv[1])), made_up_log(20_000)).run()
"""


def test_killed_at_any_moment_nothing_is_lost_or_doubled(cluster: Settings, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_bytes(cluster.to_json())
    kills = 0
    for delay in (0.7, 1.0, 1.5, 0.9, 60.0):
        process = subprocess.Popen(
            [sys.executable, "-c", RUNNER, str(file)],
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[3],
        )
        assert process.stdout
        process.stdout.readline()
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
            process.wait()
        finally:
            process.stdout.close()
    assert process.returncode == 0
    assert kills >= 2
    records = read_events(cluster)
    log = made_up_log(20_000)
    assert events_of(records) == expected(cluster, list(log.events()))
    assert_marks_are_true(records)


def test_what_the_position_does_not_know_is_found_in_the_topics(cluster: Settings) -> None:
    replay = Replayer(cluster, LOG, stop=200)
    replay.run()
    position = (cluster.state / "replay" / f"{LOG.name}.json").read_bytes()
    Replayer(cluster, LOG, stop=500).run()
    # as if killed before its position was written
    (cluster.state / "replay" / f"{LOG.name}.json").write_bytes(position)
    Replayer(cluster, LOG).run()
    assert events_of(read_events(cluster)) == expected(cluster, list(LOG.events()))


def test_topics_whose_time_is_beyond_the_log_are_refused(cluster: Settings) -> None:
    create_topics(cluster)
    with Writer(cluster, bulk=False) as writer:
        Marker(cluster, writer).mark(LOG.span[0] + 1000)
    with pytest.raises(ConfigurationError, match=r"would be late\..*headrace reset.*--state"):
        Replayer(cluster, LOG).run()
    assert not any(events_of(read_events(cluster)).values())


def test_a_closed_stretch_cannot_be_followed(cluster: Settings) -> None:
    middle = number_at(LOG, "0.5")
    Replayer(cluster, LOG, stop=middle, close=True).run()
    with pytest.raises(ConfigurationError, match="would be late"):
        Replayer(cluster, LOG).run()


def test_an_earlier_start_is_refused(cluster: Settings) -> None:
    Replayer(cluster, LOG, first=300, stop=310).run()
    with pytest.raises(ConfigurationError, match="does not go on from"):
        Replayer(cluster, LOG).run()


def test_topics_that_are_not_those_of_the_position_are_refused(
    cluster: Settings, broker: Settings
) -> None:
    Replayer(cluster, LOG, stop=300).run()
    other = cluster.with_changes(kafka={"topic_prefix": cluster.kafka.topic_prefix + "other."})
    with pytest.raises(ConfigurationError, match="not the topics"):
        Replayer(other, LOG).run()


def test_speed_is_kept_and_marks_go_on_in_a_gap(cluster: Settings) -> None:
    log = made_up_log(60)
    seconds = (log.span[1] - log.span[0]) / 1000
    began = time.monotonic()
    Replayer(cluster, log, speed=seconds / 2).run()
    took = time.monotonic() - began
    assert 2.0 <= took < 8.0
    marks = [
        event.time_mark
        for event in read_events(cluster)[topics.CLICKS, 0]
        if isinstance(event, TimeMark)
    ]
    assert len(marks) >= 10
    assert marks == sorted(marks)


def test_a_replay_with_a_lead_waits_for_the_job(cluster: Settings) -> None:
    log, lead = made_up_log(6_000), 1_000
    most = 1_100  # events between two marks, and those that close with the watermark's
    told = [0]
    replay = Replayer(cluster, log, lead=lead)
    thread = threading.Thread(
        target=lambda: replay.run(progress=lambda done, _: told.append(done)), daemon=True
    )
    thread.start()
    # the test stands for the job, which says how far the samples are complete
    with Writer(cluster, bulk=False) as writer:
        for number in (0, 2_000, 4_000, log.count):
            if number:
                watermark = log.span[1] if number == log.count else time_of(log, number)
                value = b'{"watermark":%d}' % watermark
                writer.send(cluster.topic(topics.SAMPLES), 0, b"k", value)
                writer.flush()
            due = min(number + lead // 2, log.count)
            until(functools.partial(lambda due: told[-1] >= due, due), 30, "it goes on")
            time.sleep(1.5)
            assert told[-1] <= number + lead + most
    thread.join(30)
    assert not thread.is_alive()
    records = read_events(cluster)
    assert events_of(records) == expected(cluster, list(log.events()))
    assert_marks_are_true(records)


def test_a_stop_is_heard_while_waiting(cluster: Settings) -> None:
    replay = Replayer(cluster, LOG, speed=0.001)
    timer = threading.Timer(1.0, replay.stop)
    timer.start()
    began = time.monotonic()
    assert not replay.run().finished
    assert time.monotonic() - began < 10
    timer.join()


def test_transform_changes_what_is_produced(cluster: Settings) -> None:
    import msgspec

    def ranked(event: Event) -> Event:
        if isinstance(event, Impression):
            return msgspec.structs.replace(event, variant="online", score=0.5)
        return event

    Replayer(cluster, LOG, stop=50).run(transform=ranked)
    impressions = [
        event
        for events in events_of(read_events(cluster)).values()
        for event in events
        if isinstance(event, Impression)
    ]
    assert impressions
    assert {(event.variant, event.score) for event in impressions} == {("online", 0.5)}


def test_progress_is_told_to_the_end(cluster: Settings) -> None:
    told: list[tuple[int, int]] = []
    Replayer(cluster, LOG).run(progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (LOG.count, LOG.count)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_two_at_once_are_refused(cluster: Settings) -> None:
    def second(event: Event) -> Event:
        with pytest.raises(ConfigurationError, match="another replay"):
            Replayer(cluster, LOG).run()
        return event

    Replayer(cluster, LOG, stop=1).run(transform=second)


@pytest.mark.parametrize(
    ("point", "number"),
    [
        ("0", 0),
        ("1", LOG.count),
        ("1998-07-09", 0),
        ("1998-07-09T16:00:00+00:00", 0),
        ("2030-01-01", LOG.count),
    ],
)
def test_points_of_a_log(point: str, number: int) -> None:
    assert number_at(LOG, point) == number


def test_a_fraction_never_divides_an_instant() -> None:
    for percent in range(1, 100):
        number = number_at(LOG, str(percent / 100))
        assert number == 0 or time_of(LOG, number - 1) < time_of(LOG, number)


@pytest.mark.parametrize("point", ["1.5", "-0.1", "nan", "yesterday", ""])
def test_a_point_that_is_none_is_refused(point: str) -> None:
    with pytest.raises(ConfigurationError, match="fraction"):
        number_at(LOG, point)


def test_an_empty_stretch_or_a_standstill_is_refused(cluster: Settings) -> None:
    with pytest.raises(ConfigurationError, match="nothing to replay"):
        Replayer(cluster, LOG, first=5, stop=5)
    with pytest.raises(ConfigurationError, match="never moves"):
        Replayer(cluster, LOG, speed=0)
