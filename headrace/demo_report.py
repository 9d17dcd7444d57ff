"""Prints the demo's report on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


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
