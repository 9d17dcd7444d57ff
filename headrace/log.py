"""``headrace log``: declare a log of one's own, and look at it."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from streaming.logs.check_log import LogCheck

log_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Your own log: one TOML file says where its rows are and what they mean.",
)
out = Console(soft_wrap=True)

LogName = Annotated[str, typer.Argument(help="a TOML that declares a log, or a shipped one's name")]
Folder = Annotated[Path | None, typer.Option("--path", help="the folder of the log's files")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="also write the result there")]


@log_app.command()
def init(
    files: Annotated[list[Path], typer.Argument(help="the log's files: events first")],
    target: Annotated[
        Path | None, typer.Option("--out", help="write it there; none: print it")
    ] = None,
    name: Annotated[str, typer.Option(help="what the log is called")] = "",
) -> None:
    """Look at files and write the TOML that declares them, with a comment why.

    Example: [bold]headrace log init ratings.csv movies.csv --out films.toml[/bold]
    """
    from settings.errors import ConfigurationError
    from streaming.logs.draft.draft_log import draft_log

    text = draft_log(files, name, (target.parent if target else Path()).absolute())
    if target is None:
        out.print(text, markup=False, highlight=False)
        return
    if target.exists():
        raise ConfigurationError(f"{target} is there already: delete it, or give another --out")
    target.write_text(text, encoding="utf-8")
    out.print(f"{target} is written; look through it, then: headrace log check {target}")


@log_app.command()
def check(log: LogName, path: Folder = None, json_file: JsonFile = None) -> None:
    """Count what is in a log, show the first bad lines, and report what would leak.

    Example: [bold]headrace log check films.toml[/bold]
    """
    from streaming.logs.check_log import check_log
    from streaming.logs.choose import find_log_file

    with out.status("reading ..."):
        found = check_log(*find_log_file(log, path))
    _show(found)
    if json_file is not None:
        json_file.write_text(json.dumps(asdict(found), indent=1) + "\n")


@log_app.command()
def describe(
    log: LogName,
    path: Folder = None,
    target: Annotated[Path | None, typer.Option("--out", help="the picture")] = None,
) -> None:
    """Draw a log: impressions, click rate, and the share of new users and items over time.

    Example: [bold]headrace log describe films.toml --out films.png[/bold]
    """
    from streaming.logs.check_log import check_log
    from streaming.logs.choose import find_log_file

    with out.status("reading ..."):
        found = check_log(*find_log_file(log, path))
    target = target or Path(f"{found.name}.png")
    _draw(found, target)
    out.print(f"plot: {target}")


@log_app.command()
def schema() -> None:
    """Print the JSON Schema of a log's TOML, for editors.

    Example: [bold]headrace log schema > log.schema.json[/bold]
    """
    from streaming.logs.parse_log_file import log_schema

    out.print_json(data=log_schema())


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"


def _show(found: LogCheck) -> None:
    table = Table(title=f"the log {found.name}", show_header=False)
    bad = sum(found.unreadable.values())
    reasons = "; ".join(f"{count:,} {reason}" for reason, count in found.unreadable.items())
    rows = {
        "rows looked at": f"{found.rows:,}",
        "unreadable": f"{bad:,} ({_share(bad, found.rows)}){': ' + reasons if reasons else ''}",
        "clicks (negatives are sampled)" if found.sampled else "impressions": (
            f"{found.impressions:,}"
        ),
        "users": f"{found.users:,}",
        "items": f"{found.items:,}",
        "positive": f"{found.positives:,} ({_share(found.positives, found.impressions)})",
        "actions": ", ".join(f"{count:,} {name}" for name, count in found.actions.items()),
        "time (UTC)": f"{_when(found.first_ms)} to {_when(found.last_ms)}",
        "duplicates": f"{found.duplicates:,} ({_share(found.duplicates, found.impressions)})",
    }
    if found.joined is not None:
        delays = ", ".join(f"{delay / 1000:,.0f} s" for delay in found.delay_ms)
        rows["actions with an impression"] = (
            f"{found.joined:.1%} within the attribution window; 50, 90 and 99 % come within"
            f" {delays or '-'}"
        )
    if found.unlisted:
        rows["clicks on items that are not in their list"] = (
            f"{found.unlisted:,}: they label nothing"
        )
    if found.early:
        rows["actions before their impression"] = f"{found.early:,}: is a clock or a unit wrong?"
    for name, text in rows.items():
        table.add_row(name, text)
    out.print(table)
    parts = Table(title="over time: rows of users and items that were not there before")
    for column in ("from", "rows", "positive", "new users", "new items"):
        parts.add_column(column)
    for part in found.parts:
        n = part.impressions
        parts.add_row(
            _when(part.start_ms),
            f"{n:,}",
            *(_share(c, n) for c in (part.positives, part.new_users, part.new_items)),
        )
    out.print(parts)
    for row in dict.fromkeys(found.first_unreadable):
        out.print(f"unreadable: {row}", markup=False)
    for leak in found.leaks:
        out.print(f"would leak? {leak}: is it known when the item is shown?", markup=False)
    if not found.positives and not sum(found.actions.values()):
        out.print("no row is positive: is the rule for a click right?")
    elif found.positives == found.impressions and not found.sampled:
        out.print("every row is positive: nothing can be learnt; do you want [negatives]?")


def _draw(found: LogCheck, target: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    labels = [_when(part.start_ms)[5:] for part in found.parts]
    left.bar(labels, [part.impressions for part in found.parts])
    left.set_title(f"{found.name}: rows")
    shares = {
        "positive": (middle, [p.positives for p in found.parts]),
        "new users": (right, [p.new_users for p in found.parts]),
        "new items": (right, [p.new_items for p in found.parts]),
    }
    for name, (panel, counts) in shares.items():
        values = [
            count / max(part.impressions, 1)
            for count, part in zip(counts, found.parts, strict=True)
        ]
        panel.plot(labels, values, marker=".", label=name)
        panel.set_ylim(bottom=0)
        panel.legend()
    for panel in (left, middle, right):
        panel.tick_params(axis="x", rotation=60)
        panel.grid(alpha=0.3)
    figure.savefig(target, dpi=120)
