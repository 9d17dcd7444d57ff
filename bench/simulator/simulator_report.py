"""The report of a driven run: load, true quality of what was served, true differences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from bench.simulator.behaviour import show
from bench.simulator.draws import Floats, Ints
from bench.simulator.system_client import CallFigures, SystemClient
from bench.simulator.traffic import DrivenTraffic, ServedRanking, ShownSlate
from bench.simulator.truth import (
    clicks_as_shown,
    mean_and_error,
    truth_of_rankings,
    truth_of_shown,
)
from bench.simulator.world import SimulatedWorld
from bench.summary import percentiles

_CHUNK = 1_000
_PARTS = 10
_PERCENTILES = (50, 95, 99)


def run_report(
    world: SimulatedWorld, traffic: DrivenTraffic, client: SystemClient
) -> dict[str, Any]:
    """The report, in a form that JSON can hold.

    ``worth`` of a ranking are the clicks that its first items would get in its order;
    ``gained`` is 0 for an order at random and 1 for the best one. ``compared`` has the channels
    that ranked the same requests, ``compared_late`` the same of the later half.
    """
    rankings = sorted(traffic.rankings, key=lambda ranking: ranking.row)
    parts = [p for p in np.array_split(np.arange(len(rankings)), _PARTS) if len(p)]
    return {
        "load": _load(traffic, client),
        "shown": shown_figures(world, traffic.slates),
        "served": _worth(world, rankings),
        "over_time": [_worth(world, [rankings[n] for n in part.tolist()]) for part in parts],
        "shown_over_time": _shown_over_time(world, traffic.slates),
        "variants": _by_variant(world, rankings),
        "compared": _compared(world, traffic.compared),
        "compared_late": _compared(world, [r for r in traffic.compared if r.row >= len(world) / 2]),
    }


def shown_figures(world: SimulatedWorld, slates: Sequence[ShownSlate]) -> dict[str, Any]:
    """:class:`~bench.simulator.truth.ShownTruth` of slates."""
    probability, seen, clicked, scores = [], [], [], []
    for start in range(0, len(slates), _CHUNK):
        some = slates[start : start + _CHUNK]
        requests = world.requests.rows(np.array([slate.row for slate in some]))
        shown = show(world, requests, np.stack([slate.items for slate in some]))
        probability.append(shown.probability.ravel())
        seen.append(shown.seen_probability.ravel())
        clicked.append(shown.clicked.ravel())
        scores.append(np.array([slate.scores for slate in some]).ravel())
    if not probability:
        return {"shown": 0, "clicks": 0}
    joined = (np.concatenate(one) for one in (probability, seen, clicked, scores))
    return asdict(truth_of_shown(*joined))


def _load(traffic: DrivenTraffic, client: SystemClient) -> dict[str, Any]:
    def calls(figures: CallFigures) -> dict[str, Any]:
        return {
            "answered": len(figures.milliseconds),
            "ms": percentiles(figures.milliseconds, _PERCENTILES),
            "refused": dict(figures.refused),
        }

    seconds = max(traffic.seconds, 1e-9)
    return {
        "seconds": round(traffic.seconds, 1),
        "rankings_per_second": round(len(traffic.rankings) / seconds, 1),
        "events_per_second": round(len(traffic.sent) / seconds, 1),
        "events": dict(traffic.posted),
        "given_up": dict(traffic.gave_up),
        "unanswered": traffic.unanswered,
        "cold_answers": sum(ranking.cold for ranking in traffic.rankings),
        "behind_s": round(traffic.behind_s, 3),
        "rank": calls(client.rankings),
        "post": calls(client.events),
        "catalogue": calls(client.entities),
    }


def _worth(world: SimulatedWorld, rankings: Sequence[ServedRanking]) -> dict[str, Any]:
    """Mean worth and regret of rankings."""
    width = world.settings.slate.shown
    whole = [ranking for ranking in rankings if len(ranking.items) >= width]
    if not whole:
        return {"rankings": 0}
    served, best, random = [], [], []
    for start in range(0, len(whole), _CHUNK):
        some = whole[start : start + _CHUNK]
        requests = world.requests.rows(np.array([ranking.row for ranking in some]))
        items = np.stack([ranking.items[:width] for ranking in some])
        truth = truth_of_rankings(world, requests, world.candidates(requests), items)
        served.append(truth.served)
        best.append(truth.best)
        random.append(truth.random)
    a, b, r = (np.concatenate(one) for one in (served, best, random))
    _, error = mean_and_error(b - a, _users(world, whole))
    return {
        "rankings": len(whole),
        "worth": float(a.mean()),
        "best": float(b.mean()),
        "random": float(r.mean()),
        "regret": float((b - a).mean()),
        "regret_error": error,
        "gained": float((a.mean() - r.mean()) / (b.mean() - r.mean())),
    }


def _shown_over_time(world: SimulatedWorld, slates: Sequence[ShownSlate]) -> list[dict[str, Any]]:
    ordered = sorted(slates, key=lambda slate: slate.row)
    parts = np.array_split(np.arange(len(ordered)), _PARTS)
    return [
        shown_figures(world, [ordered[n] for n in part.tolist()]) for part in parts if len(part)
    ]


def _by_variant(
    world: SimulatedWorld, rankings: Sequence[ServedRanking]
) -> dict[str, dict[str, Any]]:
    names = sorted({ranking.variant for ranking in rankings if ranking.variant})
    return {name: _worth(world, [r for r in rankings if r.variant == name]) for name in names}


def _compared(world: SimulatedWorld, rankings: Sequence[ServedRanking]) -> dict[str, Any]:
    """Channels on the same requests, and how far they truly differ."""
    by_channel: dict[str, dict[int, ServedRanking]] = {}
    for ranking in rankings:
        by_channel.setdefault(ranking.channel, {})[ranking.row] = ranking
    names = sorted(by_channel)
    if not names:
        return {}
    rows = sorted(set.intersection(*(set(found) for found in by_channel.values())))
    # a channel without a version is no match; only before any has two is that all there is
    cold = {row for found in by_channel.values() for row, ranking in found.items() if ranking.cold}
    rows = [row for row in rows if row not in cold] or rows
    worth: dict[str, Floats] = {}
    figures = {}
    for name in names:
        some = [by_channel[name][row] for row in rows]
        figures[name] = _worth(world, some)
        worth[name] = _clicks_as_shown(world, some)
    differences = {}
    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            users = world.requests.user[np.array(rows, np.int64)]
            # of one impression
            apart = (worth[second] - worth[first]) / world.settings.slate.shown
            mean, error = mean_and_error(apart, users)
            differences[f"{second} - {first}"] = {"click_rate": mean, "error": error}
    return {"channels": figures, "differences": differences}


def _clicks_as_shown(world: SimulatedWorld, rankings: Sequence[ServedRanking]) -> Floats:
    expected = [np.zeros(0)]
    for start in range(0, len(rankings), _CHUNK):
        some = rankings[start : start + _CHUNK]
        requests = world.requests.rows(np.array([ranking.row for ranking in some]))
        expected.append(clicks_as_shown(world, requests, np.stack([r.items for r in some])))
    return np.concatenate(expected)


def _users(world: SimulatedWorld, rankings: Sequence[ServedRanking]) -> Ints:
    users: Ints = world.requests.user[np.array([ranking.row for ranking in rankings])]
    return users


def show_report(report: dict[str, Any], out: Console) -> None:
    """Print it."""
    load = report["load"]
    table = Table(title=f"{load['seconds']:.0f} s of traffic")
    for name in ("call", "answered", "p50 ms", "p95 ms", "p99 ms", "refused"):
        table.add_column(name, justify="left" if name == "call" else "right")
    for name in ("rank", "post", "catalogue"):
        calls = load[name]
        refused = ", ".join(f"{count} x {why}" for why, count in calls["refused"].items()) or "-"
        table.add_row(
            name, f"{calls['answered']:,}", *(_text(ms, 1) for ms in calls["ms"].values()), refused
        )
    out.print(table)
    events = ", ".join(f"{count:,} {kind}" for kind, count in load["events"].items())
    out.print(
        f"{load['rankings_per_second']:,.1f} rankings/s, {load['events_per_second']:,.1f} events/s"
        f" ({events}); {load['unanswered']} rankings without an answer, {load['cold_answers']}"
        f" cold; at most {load['behind_s']:.2f} s behind"
    )
    if load["given_up"]:
        out.print(f"[red]refused events: {load['given_up']}[/]")
    shown = report["shown"]
    if shown["shown"]:
        out.print(
            f"shown {shown['shown']:,}, clicked {shown['clicks'] / shown['shown']:.4f}; AUC served"
            f" {_text(shown['served_auc'])}, best possible {_text(shown['best_auc'])}; predicted"
            f" over true {_text(shown['predicted_over_true'], 3)}"
        )
    _show_worth(report, out)


def _show_worth(report: dict[str, Any], out: Console) -> None:
    table = Table(title="clicks that a ranking is worth")
    for name in ("", "rankings", "served", "best", "random", "regret", "gained"):
        table.add_column(name, justify="left" if not name else "right")
    rows = {"all": report["served"]}
    rows |= {f"tenth {n}": part for n, part in enumerate(report["over_time"], 1)}
    rows |= {f"variant {name}": found for name, found in report["variants"].items()}
    compared = report["compared"].get("channels", {})
    rows |= {f"{name}, same requests": found for name, found in compared.items()}
    for name, found in rows.items():
        if found["rankings"]:
            figures = (found[key] for key in ("worth", "best", "random", "regret"))
            table.add_row(
                name,
                f"{found['rankings']:,}",
                *(_text(value) for value in figures),
                f"{found['gained']:.1%}",
            )
    out.print(table)
    for name, found in report["compared"].get("differences", {}).items():
        out.print(
            f"true difference of the click rate as shown, {name}: {found['click_rate']:+.5f}"
            f" ± {1.96 * found['error']:.5f}"
        )


def _text(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"
