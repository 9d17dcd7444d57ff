"""``headrace simulate``: made-up traffic with known click probabilities, as a log or live."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from settings.errors import ConfigurationError

if TYPE_CHECKING:
    from bench.simulator.policy_log import Policy
    from bench.simulator.world import SimulatedWorld
    from bench.simulator.world_settings import WorldSettings

out = Console()

_TRAFFIC = "traffic against a system"
_LOG = "a log without a system"


def simulate(
    context: typer.Context,
    preset: Annotated[str, typer.Option(help="the kind of world: news, shop, video, ads")] = "news",
    world: Annotated[
        Path | None, typer.Option(help="a TOML file of settings on top of the preset")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--with", help="one setting of the world, as clicks.rate=0.001; repeatable"),
    ] = None,
    show: Annotated[
        bool, typer.Option("--show", help="print the world's settings and stop")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="another seed, another world of the kind")] = 0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="also write the report there")
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=1, help="how long to drive", rich_help_panel=_TRAFFIC)
    ] = 60.0,
    rate: Annotated[
        float, typer.Option(min=0.1, help="events a second", rich_help_panel=_TRAFFIC)
    ] = 200.0,
    speed: Annotated[
        float,
        typer.Option(
            min=0.001,
            help="the world's seconds in one: delays, drift and ages pass so much faster",
            rich_help_panel=_TRAFFIC,
        ),
    ] = 1.0,
    url: Annotated[
        str, typer.Option(help="of the server; empty: as set", rich_help_panel=_TRAFFIC)
    ] = "",
    compare: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="part of the requests that all channels rank, without a trace",
            rich_help_panel=_TRAFFIC,
        ),
    ] = 0.1,
    keep: Annotated[
        Path | None,
        typer.Option(help="write the traffic as a log into this folder", rich_help_panel=_TRAFFIC),
    ] = None,
    offline: Annotated[
        Path | None, typer.Option(help="write it into this folder", rich_help_panel=_LOG)
    ] = None,
    impressions: Annotated[
        int, typer.Option(min=1, help="how many are shown", rich_help_panel=_LOG)
    ] = 100_000,
    days: Annotated[
        float, typer.Option(min=0.001, help="of the world's time", rich_help_panel=_LOG)
    ] = 7.0,
    policy: Annotated[
        str, typer.Option(help="what ranks: random or popularity", rich_help_panel=_LOG)
    ] = "popularity",
) -> None:
    """Make traffic whose truth is known: users, tastes that drift, late and lost events.

    Example: [bold]headrace simulate --preset shop --rate 200 --seconds 300[/bold]

    Example: [bold]headrace simulate --preset shop --offline shop-log --impressions 1000000[/bold],
    then [bold]headrace bench online --log shop-log/log.toml[/bold]
    """
    from bench.simulator.drive import drive, requests_at
    from bench.simulator.world import DAY_MS, SimulatedWorld
    from deploy.local.parts import server_url

    wanted = _world_settings(preset, world, change or [])
    if show:
        import msgspec

        out.print_json(json.dumps(msgspec.to_builtins(wanted)))
        return
    name = f"simulated-{preset}"
    if offline is not None:
        chosen = _policy(policy)
        count = -(-impressions // wanted.slate.shown)
        made = SimulatedWorld(wanted, seed=seed, requests=count, span_ms=int(days * DAY_MS))
        report = _write_offline(made, offline, name, chosen)
    else:
        made = SimulatedWorld(
            wanted,
            seed=seed,
            requests=requests_at(wanted, rate, seconds),
            span_ms=int(seconds * speed * 1000),
        )
        report = drive(
            made,
            url or server_url(context.obj),
            speed=speed,
            compare=compare,
            name=name,
            keep=keep,
            out=out,
        )
    if json_file is not None:
        json_file.parent.mkdir(parents=True, exist_ok=True)
        whole = {"preset": preset, "seed": seed, **report}
        json_file.write_text(json.dumps(whole, indent=1) + "\n")


def _policy(name: str) -> Policy:
    from bench.simulator.policy_log import POLICIES

    for known in POLICIES:
        if known == name:
            return known
    raise ConfigurationError(f"--policy {name}: there are {', '.join(POLICIES)}")


def _write_offline(
    world: SimulatedWorld, folder: Path, name: str, policy: Policy
) -> dict[str, Any]:
    from bench.simulator.write_offline import show_offline, write_offline
    from streaming.replay.progress_bar import progress_bar

    with progress_bar("requests") as bar:
        report = write_offline(world, folder, name, policy=policy, progress=bar)
    show_offline(report, out)
    return report


def _world_settings(name: str, file: Path | None, changes: list[str]) -> WorldSettings:
    from bench.simulator.world_settings import changed_world, preset_world, read_world

    found = preset_world(name)
    if file is not None:
        found = read_world(file, found)
    return changed_world(found, changes)
