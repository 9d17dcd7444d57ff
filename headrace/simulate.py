"""``headrace simulate``: made-up traffic with known click probabilities, as a log or live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from settings.errors import ConfigurationError

if TYPE_CHECKING:
    from bench.simulator.world_settings import WorldSettings

out = Console()


def simulate(
    context: typer.Context,
    offline: Annotated[Path, typer.Option(help="write a log into this folder, without a system")],
    preset: Annotated[str, typer.Option(help="the kind of world: news, shop, video, ads")] = "news",
    world: Annotated[
        Path | None, typer.Option(help="a TOML file of settings on top of the preset")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--with", help="one setting of the world, as clicks.rate=0.001; repeatable"),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="print the world's settings and stop")] = (
        False
    ),
    seed: Annotated[int, typer.Option(min=0, help="another seed, another world of the kind")] = 0,
    impressions: Annotated[int, typer.Option(min=1, help="how many are shown")] = 100_000,
    days: Annotated[float, typer.Option(min=0.001, help="of the world's time")] = 7.0,
    policy: Annotated[str, typer.Option(help="what ranks: random or popularity")] = "popularity",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="also write the report there")
    ] = None,
) -> None:
    """Make traffic whose truth is known: users, tastes that drift, late and lost events.

    Example: [bold]headrace simulate --preset shop --offline shop-log --impressions 1000000[/bold]
    """
    from bench.simulator.policy_log import POLICIES
    from bench.simulator.world import DAY_MS, SimulatedWorld
    from bench.simulator.write_offline import write_offline
    from streaming.replay.progress_bar import progress_bar

    wanted = _world_settings(preset, world, change or [])
    if show:
        import msgspec

        out.print_json(json.dumps(msgspec.to_builtins(wanted)))
        return
    chosen = next((known for known in POLICIES if known == policy), None)
    if chosen is None:
        raise ConfigurationError(f"--policy {policy}: there are {', '.join(POLICIES)}")
    requests = -(-impressions // wanted.slate.shown)
    made = SimulatedWorld(wanted, seed=seed, requests=requests, span_ms=int(days * DAY_MS))
    with progress_bar(f"{preset}: requests") as bar:
        report = write_offline(made, offline, chosen, bar)
    report = {"preset": preset, **report}
    out.print(_offline_table(report))
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        json_file.write_text(json.dumps(report, indent=1) + "\n")


def _world_settings(name: str, file: Path | None, changes: list[str]) -> WorldSettings:
    from bench.simulator.world_settings import preset, read_world

    found = preset(name)
    if file is not None:
        found = read_world(file, found)
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ConfigurationError(f"--with wants TABLE.NAME=VALUE, got {change!r}")
        try:
            value: Any = json.loads(text)
        except json.JSONDecodeError:
            value = text
        for part in reversed(path.split(".")):
            value = {part: value}
        found = found.with_changes(value)
    return found


def _offline_table(report: dict[str, Any]) -> Table:
    table = Table(title=f"a log of the world {report['preset']}, seed {report['seed']}")
    table.add_column("what")
    table.add_column("figure", justify="right")
    rows = {
        "folder": report["folder"],
        "impressions written": f"{report['written']['impressions']:,}",
        "actions written": f"{report['written']['actions']:,}",
        "of these a second time": f"{report['written']['repeated']:,}",
        "lost on the way": f"{report['written']['lost']:,}",
        "clicks an impression": f"{report['click_rate']:.4f}",
        "best possible AUC": _figure(report["truth"].get("best_auc")),
        "… without the position": _figure(report["truth"].get("best_auc_unplaced")),
        "events/s": f"{report['events_per_second']:,}",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
