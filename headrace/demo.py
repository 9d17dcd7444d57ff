"""``headrace demo``: a real log through everything, ranked before it is known, and a report.

1. Most of the log, or of a first part of it, is replayed at full speed. Its beginning warms the
   model up; on the rest the trainer predicts before it learns, together with its frozen copy and a
   logistic regression.
2. In the last stretch every impression is first ranked by the server among sampled candidates, and
   only then produced with the variant, version and score that it was served with.
3. What was counted, learnt and measured is reported.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.summary import percentiles, report_figures
from deploy.local.loop import Loop
from deploy.local.probe import FreshnessProbe
from deploy.local.ranked import RankedStretch
from serving.experiments.assignment import active_experiment
from serving.experiments.exposures import experiment_report
from settings.errors import ConfigurationError
from settings.settings import Settings
from streaming.events import Impression
from streaming.kafka.ledger import count_events
from streaming.logs import EventLog
from streaming.logs.choose import find_log, log_section
from streaming.replay.replayer import time_of

WARMUP_SHARE = 0.9
_EVENTS_AN_IMPRESSION = 1.8
# of fewer events the job's JVM compiles for a quick start (15 s of CPU less), not for a long run
# (an eighth less of CPU an event)
_FEW_EVENTS = 300_000
EXPERIMENT = """\
name = "online-or-frozen"
[[variants]]
name = "champion"
channel = "champion"
share = 0.5
[[variants]]
name = "frozen"
channel = "frozen"
share = 0.5
"""


@dataclass(frozen=True, slots=True)
class ReportPart:
    """What is read of a log, by the numbers of events.

    Attributes:
        warmup: the first event behind the warm-up.
        stretch: the first one that is ranked before it is known.
        stop: the first one that is not read.
    """

    warmup: int
    stretch: int
    stop: int

    @classmethod
    def of(cls, log: EventLog, *, sample: float, ranked: int) -> ReportPart:
        """Cut a first part of the log, never between events of one time.

        Raises:
            ConfigurationError: too few events lie before so many ranked impressions.
        """
        count = int(log.count * sample)
        stretch = count - int(ranked * _EVENTS_AN_IMPRESSION)
        warmup = int(count * WARMUP_SHARE)
        if stretch <= warmup:
            raise ConfigurationError(
                f"--ranked {ranked} leaves no stretch between warm-up and ranking:"
                f" {count:,} events of {log.name} are read; choose fewer"
            )
        stop = count if count == log.count else log.index_at(time_of(log, count))
        return cls(warmup, log.index_at(time_of(log, stretch)), stop)


def demo_settings(
    settings: Settings,
    log: EventLog,
    *,
    count: int,
    warmup_until_ms: int,
    ranked: int,
) -> Settings:
    """The settings of a run in its own empty folder, fitted to the log.

    Args:
        settings: what all else is taken from.
        log: what is replayed.
        count: how many of its events.
        warmup_until_ms: where the warm-up ends, in the log's time.
        ranked: impressions of that stretch: the trainer's window shall hold just these.
    """
    state = settings.state / "demo"
    if count < _FEW_EVENTS:
        options = f"{settings.flink.jvm_options} -XX:TieredStopAtLevel=1"
        settings = settings.with_changes(flink={"jvm_options": options})
    return settings.with_changes(
        state=state,
        kafka={"timestamps": "producer"},
        log=log_section(log),
        trainer={
            "warmup_until_ms": warmup_until_ms,
            "evaluation_window": ranked,
        },
        serving={"experiment": str(state / "experiment.toml")},
    )


def run_demo(
    settings: Settings,
    *,
    log: str,
    path: Path | None,
    ranked: int,
    speed: float,
    longest_wait_s: float,
    sample: float,
    out: Console,
) -> dict[str, Any]:
    """Run it all.

    Args:
        settings: the demo uses its own folder inside their state folder.
        log: name of the log.
        path: its folder; None: fetch it.
        ranked: impressions of the last stretch.
        speed: event time over wall time in the last stretch.
        longest_wait_s: a gap of the log is shortened to this much wall time there, so that nights
            and idle weeks pass quickly.
        sample: first part of the log's events that is read; the stretch is at its end.
        out: where progress goes.

    Returns:
        The report, in the form of the README.
    """
    began = time.monotonic()
    events = find_log(log, path)
    part = ReportPart.of(events, sample=sample, ranked=ranked)
    settings = demo_settings(
        settings,
        events,
        count=part.stop,
        warmup_until_ms=time_of(events, part.warmup),
        ranked=sum(isinstance(e, Impression) for e in events.events(part.stretch, part.stop)),
    )
    settings.state.mkdir(parents=True, exist_ok=True)
    (settings.state / "experiment.toml").write_text(EXPERIMENT)
    with Loop(settings, events, out) as loop:
        replay_began = time.monotonic()
        fast = loop.replay("warm-up at full speed", stop=part.stretch)
        loop.say("the trainer warms up and catches up ...")
        loop.wait_until_learnt(fast.impressions)
        events_per_second = (fast.impressions + fast.clicks) / (time.monotonic() - replay_began)
        loop.wait_until("a version of each channel is served", loop.client.serves_versions, 300)
        with FreshnessProbe(settings) as probe:
            ranking = RankedStretch(loop, probe)
            slow = loop.replay(
                "ranked before it is known",
                first=part.stretch,
                stop=part.stop,
                speed=speed,
                longest_wait_s=longest_wait_s,
                transform=ranking.serve,
                catalogue=False,
            )
            loop.wait_until_learnt(fast.impressions + slow.impressions)
        loop.stop_part("trainer")
        report = loop.trainer_report()
        experiment = experiment_report(settings, active_experiment(settings))
        sums = count_events(settings)
    return {
        "log": events.name,
        "seconds": round(time.monotonic() - began, 1),
        "events_per_second": round(events_per_second),
        "events": sums.to_json(),
        **report_figures(report),
        "as_served": {
            variant.name: {
                "auc": variant.auc,
                "exposures": variant.ctr.exposures,
                "clicks": variant.ctr.clicks,
            }
            for variant in experiment.variants
        },
        "as_served_all_by_both": ranking.auc(),
        "trainer_on_the_same": {
            model: rows["window"]["auc"] for model, rows in report.models.items()
        },
        "freshness_ms": probe.summary(),
        "rank_ms": percentiles(ranking.rank_ms, (50, 99)),
        "published": {
            "versions": report.published[settings.trainer.channel].versions,
            "deltas": report.published[settings.trainer.channel].deltas,
        },
        "evaluated": report.evaluated,
        "peak_memory_bytes": loop.peak_bytes,
    }


def show(report: dict[str, Any], out: Console) -> None:
    """Print the report."""
    out.rule(f"headrace demo: {report['log']} in {report['seconds']:.0f} s")
    _events(report, out)
    _models(report, out)
    _served(report, out)
    fresh = report["freshness_ms"]
    out.print(
        f"a click is in the user's features after {_ms(fresh['feature'])}, in the served vectors"
        f" after {_ms(fresh['vector'])}; one ranking takes {report['rank_ms']['p50']} ms"
        f" (p99 {report['rank_ms']['p99']} ms)"
    )
    out.print(
        f"{report['events_per_second']:,} events/s through the whole loop at full speed;"
        f" {report['published']['versions']} versions and {report['published']['deltas']} deltas"
        f" published; {report['peak_memory_bytes'] / 1e9:.1f} GB at most in all processes"
    )


def _events(report: dict[str, Any], out: Console) -> None:
    table = Table(title="every event accounted for")
    table.add_column("")
    table.add_column("produced", justify="right")
    table.add_column("became", justify="left")
    for name in ("impressions", "clicks"):
        sums = report["events"][name]
        rest = ", ".join(f"{v:,} {k}" for k, v in sums.items() if k != "produced")
        table.add_row(name, f"{sums['produced']:,}", rest)
    out.print(table)


def _models(report: dict[str, Any], out: Console) -> None:
    table = Table(
        title=f"predicted before learnt: {report['evaluated']:,} impressions after the warm-up"
    )
    table.add_column("model")
    for name in ("AUC", "logloss", "GAUC", "calibration"):
        table.add_column(name, justify="right")
    for model in report["auc"]:
        row = [report[metric][model] for metric in ("auc", "logloss", "gauc", "calibration")]
        table.add_row(model, *("-" if value is None else f"{value:.4f}" for value in row))
    out.print(table)


def _served(report: dict[str, Any], out: Console) -> None:
    table = Table(title="as served, before the outcome was known")
    for name in ("variant", "exposures", "clicks", "AUC", "AUC, all impressions"):
        table.add_column(name, justify="left" if name == "variant" else "right")
    for variant, found in report["as_served"].items():
        both = report["as_served_all_by_both"].get(variant)
        table.add_row(
            variant,
            f"{found['exposures']:,}",
            f"{found['clicks']:,}",
            "-" if found["auc"] is None else f"{found['auc']:.4f}",
            "-" if both is None else f"{both:.4f}",
        )
    out.print(table)


def _ms(found: dict[str, float | None]) -> str:
    if found["p50"] is None:
        return "(not measured)"
    return f"{found['p50']:,.0f} ms (p95 {found['p95']:,.0f})"
