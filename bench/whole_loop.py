"""``bench loop``: the whole system under a real log, and what it is like to use it afterwards.

1. **Full speed.** The log, but for its last events, is replayed as fast as it goes through Kafka,
   Flink, the feature store and the trainer. The clock stops when each of its samples is learnt and
   each feature row is written; the warm-up's fit is in it.
2. **Ranking.** One client asks for rankings of so many random candidates, one after the other,
   with the parts running and nothing else to do.
3. **Live.** The last events are sent with the time of now, so many a second, and some of the
   clicks are followed until the server knows of them.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
from matplotlib.figure import Figure
from rich.table import Table

from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from bench.summary import percentiles, report_figures
from deploy.local.http_client import Client
from deploy.local.loop import Loop
from deploy.local.probe import FreshnessProbe
from settings.settings import Settings
from streaming.events import Click, encode
from streaming.kafka.client import partition_for
from streaming.kafka.ledger import count_events
from streaming.kafka.topics import CLICKS, IMPRESSIONS
from streaming.kafka.writer import Writer
from streaming.logs import Event, EventLog
from streaming.logs.choose import find_log, log_section
from streaming.replay.replayer import time_of
from trainer.trainer_report import TrainerReport

# events between two steps of the progress bar
_SAY = 200
# of so many clicks one is followed
_FOLLOW = 10
_WARM_REQUESTS = 50


def bench_loop(
    settings: Settings,
    options: Options,
    *,
    warm_up: float,
    live: int,
    rate: float,
    candidates: int,
    requests: int,
) -> list[Row]:
    """Run it.

    Args:
        settings: the bench uses its own folder inside their state folder, and empties it.
        options: log and files.
        warm_up: part of the events whose samples are the warm-up.
        live: how many events, the log's last ones, are sent live.
        rate: live events a second.
        candidates: of a ranking.
        requests: how many rankings are timed.
    """
    session = Session("loop", options)
    log = find_log(options.log, options.path)
    session.note_sampling(log)
    stop = log.index_at(
        time_of(log, max(1, min(int(log.count * options.sample), log.count) - live))
    )
    settings = settings.with_changes(
        state=settings.state / "bench-loop",
        kafka={"timestamps": "producer"},
        log=log_section(log),
        trainer={"warmup_until_ms": time_of(log, int(stop * warm_up))},
    )

    def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
        with Loop(settings, log, options.console) as loop:
            found = _full_speed(loop, stop, say)
            loop.wait_until("a version of each channel is served", loop.client.serves_versions, 300)
            found["rank_ms"] = _rank(settings, log, candidates, requests, say)
            found["freshness_ms"] = _live(loop, list(log.events(stop, stop + live)), rate, say)
            found["events"] = count_events(settings).to_json()
            found["peak_memory_bytes"] = loop.peak_bytes
        yield {}, found

    unit = Unit(
        title=f"{log.name} through the loop",
        key={
            "warm_up": warm_up,
            "live": live,
            "rate": rate,
            "candidates": candidates,
            "preset": settings.trainer.preset,
            "batch": settings.trainer.batch_samples,
        },
        count=1,
        measure=measure,
    )
    rows = session.measure([unit])
    session.finish(rows, _table(rows), _figure(rows))
    return rows


def _full_speed(loop: Loop, stop: int, say: Report) -> dict[str, Any]:
    say("full speed", 0.0)
    began = time.monotonic()
    done = loop.replay("full speed", stop=stop)
    replayed = time.monotonic() - began

    def settled() -> bool:
        report = loop.trainer_report()
        say("full speed", report.samples.learnt / done.impressions)
        # the last ones may wait for a mark that is further behind them
        missing = done.impressions - report.samples.learnt
        return missing < loop.settings.trainer.batch_samples and not loop.writer_lag()

    loop.wait_until("everything is learnt and written", settled, 3600)
    seconds = time.monotonic() - began
    report: TrainerReport = loop.trainer_report()
    return {
        "events_per_second": round((done.impressions + done.clicks) / seconds),
        "seconds": round(seconds, 1),
        "replayed_after_seconds": round(replayed, 1),
        "trainer_seconds": {name: round(s, 1) for name, s in report.seconds.items()},
        "evaluated": report.evaluated,
        **report_figures(report),
    }


def _rank(
    settings: Settings, log: EventLog, candidates: int, requests: int, say: Report
) -> dict[str, float | None]:
    """Milliseconds of rankings by percentile, as one client sees them."""
    client = Client(settings)
    draw = random.Random(0)  # noqa: S311 - sampling, not security
    items = [item.id for item in log.items()]
    users = [user.id for user in log.users()]
    times = []
    for number in range(_WARM_REQUESTS + requests):
        some = draw.sample(items, min(candidates, len(items)))
        began = time.perf_counter()
        client.rank(draw.choice(users), some, k=100)
        if number >= _WARM_REQUESTS:
            times.append((time.perf_counter() - began) * 1000)
        if number % _SAY == 0:
            say("rankings", number / (_WARM_REQUESTS + requests))
    return percentiles(times, (50, 95, 99))


def _live(loop: Loop, events: list[Event], rate: float, say: Report) -> dict[str, Any]:
    """Send events at their turn, with the time of then; how soon the server knew of clicks."""
    settings = loop.settings
    loop.start_part("clock")
    clicks = 0
    with (
        FreshnessProbe(settings) as probe,
        Writer(settings, bulk=False) as writer,
    ):
        began = time.monotonic()
        for number, event in enumerate(events):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            now = msgspec.structs.replace(event, ts=time.time_ns() // 1_000_000)
            key = now.user_id.encode()
            topic = settings.topic(CLICKS if isinstance(now, Click) else IMPRESSIONS)
            writer.send(topic, partition_for(key, settings.kafka.partitions), key, encode(now))
            if isinstance(now, Click):
                clicks += 1
                if clicks % _FOLLOW == 0:
                    probe.follow(now)
            if number % _SAY == 0:
                say("live", number / len(events))
                loop.watch()
    return probe.summary()


def _table(rows: list[Row]) -> Table:
    table = Table(title="the loop under a real log")
    table.add_column("what")
    table.add_column("figure", justify="right")
    for row in rows:
        for name, value in row.figures.items():
            text = json.dumps(value) if isinstance(value, dict) else str(value)
            table.add_row(name, text)
    return table


def _figure(rows: list[Row]) -> Figure:
    """Freshness by percentile."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    panel = figure.subplots()
    for row in rows:
        for name, found in row.figures["freshness_ms"].items():
            shown = {p: found[p] for p in ("p50", "p95", "p99") if found[p] is not None}
            panel.plot(list(shown), list(shown.values()), marker="o", label=name)
    panel.set(
        xlabel="percentile", ylabel="ms from the click until the server knows", ylim=(0, None)
    )
    panel.grid(alpha=0.3)
    panel.legend()
    return figure
