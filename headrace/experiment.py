"""``headrace experiment report``: CTR with intervals and AUC as served, for each variant."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from serving.experiments.analysis import ExperimentReport, Interval
from serving.experiments.assignment import active_experiment
from serving.experiments.exposures import experiment_report
from settings.settings import Settings


def gather(settings: Settings) -> ExperimentReport:
    """The report of the active experiment, over impressions whose window has passed."""
    return experiment_report(settings, active_experiment(settings))


def as_json(report: ExperimentReport) -> dict[str, Any]:
    """The whole report in a form that JSON can hold."""
    return {**asdict(report), "sample_ratio_mismatch": report.ratio.alarm}


def show(report: ExperimentReport, out: Console) -> None:
    """Print it: a row a variant, then the differences and the warnings."""
    table = Table(title=f"experiment {report.experiment}")
    for name in ("variant", "share", "users", "exposures", "clicks", "CTR", "AUC as served"):
        table.add_column(name, justify="right" if name != "variant" else "left")
    for variant in report.variants:
        ctr = variant.ctr
        table.add_row(
            variant.name,
            f"{variant.share:.0%}",
            f"{ctr.users:,}",
            f"{ctr.exposures:,}",
            f"{ctr.clicks:,}",
            f"{ctr.value:.4f} {_between(ctr.interval)}",
            "-" if variant.auc is None else f"{variant.auc:.4f}",
        )
    out.print(table)
    for one in report.differences:
        p_value = "no p-value" if one.p_value is None else f"p = {one.p_value:.3f}"
        out.print(
            f"CTR of {one.variant} - {one.control}: {one.value:+.4f} {_between(one.interval)},"
            f" {p_value}"
        )
    out.print(f"intervals at {report.confidence:.0%} for one look, users as clusters")
    for verdict in report.verdicts:
        out.print(f"[bold]{verdict.decision}[/]: {verdict.variant}. {verdict.reason}")
        for interval in verdict.intervals:
            which = "at any time" if interval.look is None else f"look {interval.look}"
            out.print(
                f"  first-day CTR, {which}: {interval.value:+.4f}"
                f" \\[{interval.low:+.4f}, {interval.high:+.4f}], {interval.users:,} users"
            )
    for note in report.notes:
        out.print(f"[yellow]note[/] {note}")


def _between(interval: Interval) -> str:
    return f"\\[{interval.low:.4f}, {interval.high:.4f}]"
