"""``headrace status``: sums of all events, lags, versions and freshness."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from deploy.local.http_client import Client
from deploy.local.leftovers import leftovers
from inttower.publish.store import ModelStore
from settings.errors import HeadraceError
from settings.settings import Settings
from streaming.kafka.client import wait_for_broker
from streaming.kafka.ledger import count_events
from trainer.trainer_report import read_report, report_path


def gather(settings: Settings, out: Console) -> dict[str, Any]:
    """Gather what status shows; counts what the topics received since the last call."""
    wait_for_broker(settings, timeout_s=5)
    with out.status("counting what the topics received since the last count ..."):
        sums = count_events(settings)
    report = read_report(report_path(settings.state))
    store = ModelStore(settings.store_url)
    return {
        "running": leftovers(settings.state / "run"),
        "events": sums.to_json(),
        "balances": sums.balances,
        "trainer": None if report is None else msgspec.to_builtins(report),
        "versions": {
            channel: {"current": store.current(channel), "kept": store.versions(channel)}
            for channel in store.channels()
        },
        "server": _server(settings),
    }


def _server(settings: Settings) -> dict[str, Any]:
    try:
        return {"running": True, **Client(settings).get("/v1/versions")}
    except HeadraceError as error:
        return {"running": False, "why": str(error)}


def show(found: dict[str, Any], out: Console) -> None:
    """Print it."""
    running = ", ".join(found["running"]) or "none (of this state folder)"
    out.print(f"parts running: {running}")
    table = Table(title="every event accounted for" if found["balances"] else "SUMS DO NOT ADD UP")
    for name in ("events", "produced", "became"):
        table.add_column(name, justify="right" if name == "produced" else "left")
    for topic in ("impressions", "clicks"):
        sums = found["events"][topic]
        became = ", ".join(f"{v:,} {k}" for k, v in sums.items() if k != "produced" and v)
        table.add_row(topic, f"{sums['produced']:,}", became)
    out.print(table)
    if reasons := found["events"]["reasons"]:
        out.print(f"dead letters: {', '.join(f'{n:,} {why}' for why, n in reasons.items())}")
    if overdue := found["events"]["overdue"]:
        out.print(
            f"[red]{overdue:,} events are overdue[/]: lost, or not committed yet; run status again"
        )
    show_more(found["events"], out)
    _show_trainer(found["trainer"], out)
    for channel, versions in found["versions"].items():
        out.print(f"{channel}: {versions['current']} of {len(versions['kept'])} kept")
    server = found["server"]
    if server["running"]:
        now = time.time()
        for name, channel in server["channels"].items():
            out.print(f"served {name}: {served(channel, now)}", markup=False)
    else:
        out.print(f"server: {server['why']}")


def show_more(events: dict[str, Any], out: Console) -> None:
    """Late events and rankings, where there are some."""
    late, rankings = events["late"], events["rankings"]
    if late["events"]:
        p50, p95, most = (late[f"{name}_ms"] / 1000 for name in ("p50", "p95", "max"))
        out.print(
            f"late: {late['events']:,} events, half of them by up to {p50:,.1f} s, 95 % by up to"
            f" {p95:,.1f} s, the latest by {most:,.1f} s"
        )
    if rankings["written"]:
        out.print(
            f"rankings: {rankings['written']:,}, of {rankings['without_impression']:,} nothing was"
            " shown"
        )


def served(channel: dict[str, Any], now: float) -> str:
    """One line about what a channel serves and how fresh it is; ``now`` is Unix time.

    >>> holds = {"version": "000002", "delta": 7, "created_ms": 1000, "delta_created_ms": 9600}
    >>> served({"serves": {**holds, "items": 3, "users": 2}, "refused": []}, now=10.0)
    'version 000002, 9 s old; delta 7 on it, 0.4 s old; 3 items, 2 users'
    """
    holds, refused = channel["serves"], channel["refused"]
    if holds is None:
        line = "nothing yet"
    else:
        line = f"version {holds['version']}, {now - holds['created_ms'] / 1000:.0f} s old; "
        if holds["delta_created_ms"] is None:
            line += "no delta on it"
        else:
            age = now - holds["delta_created_ms"] / 1000
            line += f"delta {holds['delta']} on it, {age:.1f} s old"
        line += f"; {holds['items']:,} items, {holds['users']:,} users"
    if refused:
        last = refused[0]
        line += f"; {len(refused)} refused, the last: {last['what']}: {last['detail']}"
    return line


def _show_trainer(report: dict[str, Any] | None, out: Console) -> None:
    if report is None:
        out.print("trainer: no report yet")
        return
    age = time.time() - report["written_ms"] / 1000
    samples = report["samples"]
    out.print(
        f"trainer: {report['phase']}, {samples['learnt']:,} of {samples['seen']:,} samples learnt,"
        f" {report['lag']:,} not read yet; reported {age:.0f} s ago"
    )
    if corrected := samples.get("corrected"):
        out.print(f"   {corrected:,} labels were corrected after they had been learnt")
    for model, rows in report["models"].items():
        auc = rows["window"]["auc"]
        out.print(f"   {model}: AUC {'-' if auc is None else f'{auc:.4f}'} over the window")
