"""The command ``headrace``. Each command imports what it needs, since some imports are slow."""

from __future__ import annotations

import json
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from headrace.bench_command import bench
from headrace.entity_commands import items_app, users_app
from headrace.log import log_app
from headrace.simulate import simulate
from inttower.errors import IntTowerError
from settings.errors import ConfigurationError, HeadraceError
from settings.settings import Settings
from streaming.kafka.tune_gc import tune_gc

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A pre-ranker that keeps learning from the click stream while it serves.",
)
experiment_app = typer.Typer(no_args_is_help=True, help="A/B experiments on the served models.")
app.add_typer(experiment_app, name="experiment")
app.add_typer(bench, name="bench")
app.add_typer(log_app, name="log")
app.command()(simulate)
app.add_typer(items_app, name="items")
app.add_typer(users_app, name="users")

out = Console()

JsonFile = Annotated[Path | None, typer.Option("--json", help="also write the result there")]


def _set(settings: Settings, change: str) -> Settings:
    path, sep, value = change.partition("=")
    section, dot, name = path.partition(".")
    if not sep:
        raise ConfigurationError(f"--set wants SECTION.NAME=VALUE, got {change!r}")
    given = None if value == "null" else value
    sections: dict[str, object] = {section: {name: given} if dot else given}
    if section not in Settings.model_fields:
        known = ", ".join(Settings.model_fields)
        raise ConfigurationError(f"--set {change}: no section {section!r}; there are {known}")
    return settings.with_changes(**sections)


@app.callback()
def common(
    context: typer.Context,
    state: Annotated[
        Path | None, typer.Option(help="the folder of all local data (default .headrace)")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="a TOML file of settings (default headrace.toml)")
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="one setting, as section.name=value; may be repeated"),
    ] = None,
) -> None:
    """Settings for the command: flags win over environment, environment over the file."""
    if config is not None and not config.exists():
        raise ConfigurationError(f"--config {config}: there is no such file")
    Settings.config_file = config
    settings = Settings()
    if state is not None:
        settings = settings.with_changes(state=state)
    for one in change or ():
        settings = _set(settings, one)
    context.obj = settings.with_changes(state=settings.state.absolute())


@app.command()
def demo(
    context: typer.Context,
    log: Annotated[
        str,
        typer.Option(
            help="a TOML that declares a log, or the name of one that comes with headrace"
        ),
    ] = "ml-100k",
    path: Annotated[Path | None, typer.Option(help="the folder of the log's files")] = None,
    ranked: Annotated[
        int, typer.Option(min=1, help="impressions that the server ranks first")
    ] = 2000,
    speed: Annotated[
        float, typer.Option(min=0.01, help="event time over wall time in the ranked stretch")
    ] = 100.0,
    longest_wait: Annotated[
        float,
        typer.Option(min=0.0, help="most seconds that a gap of the log lasts in that stretch"),
    ] = 0.025,
    sample: Annotated[
        float,
        typer.Option(
            min=0.01, max=1.0, help="share of the log's events that is read, from the first on"
        ),
    ] = 1.0,
    json_file: JsonFile = None,
) -> None:
    """Stream a real log through all parts, learn from it, and report.

    It uses its own folder, STATE/demo, and empties it first.

    Example: [bold]headrace demo --json report.json[/bold]
    """
    from headrace.demo import run_demo, show

    report = run_demo(
        context.obj,
        log=log,
        path=path,
        ranked=ranked,
        speed=speed,
        longest_wait_s=longest_wait,
        sample=sample,
        out=out,
    )
    show(report, out)
    _write_json(json_file, report)


@app.command()
def up(
    context: typer.Context,
    clock: Annotated[
        bool, typer.Option(help="live time marks; without them a log can be replayed into it")
    ] = True,
) -> None:
    """Start all parts, stay, restart a part that dies; Ctrl-C stops cleanly.

    Example: [bold]headrace --state /var/lib/headrace up[/bold]
    """
    from headrace.up import stay_up

    stay_up(context.obj, out, clock=clock)


@app.command()
def replay(
    context: typer.Context,
    log: Annotated[
        str, typer.Argument(help="a TOML that declares it, or a name: ml-100k, ml-1m, …")
    ],
    path: Annotated[Path | None, typer.Option(help="the folder of the log's files")] = None,
    speed: Annotated[
        float, typer.Option(help="event time over wall time; 0: as fast as possible")
    ] = 0.0,
    start: Annotated[str, typer.Option(help="a fraction (0.5) or a date-time of the log")] = "0",
    end: Annotated[str, typer.Option(help="likewise, exclusive")] = "1",
) -> None:
    """Replay an event log into the topics; a replay that was stopped resumes at the same record.

    Example: [bold]headrace replay ml-1m --path ~/ml-1m --speed 1000 --start 0.8[/bold]
    """
    from headrace.replay import replay_log
    from streaming.logs.choose import find_log

    replay_log(context.obj, find_log(log, path), speed=speed, start=start, end=end, out=out)


@app.command()
def status(context: typer.Context, json_file: JsonFile = None) -> None:
    """The sums of all events, lags, versions and freshness.

    Example: [bold]headrace status --json status.json[/bold]
    """
    from headrace.status import gather, show

    found = gather(context.obj, out)
    show(found, out)
    _write_json(json_file, found)


@app.command()
def rank(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="user id")],
    candidates: Annotated[
        list[str] | None, typer.Argument(help="item ids; none: all items")
    ] = None,
    k: Annotated[int, typer.Option("-k", help="how many to return")] = 10,
    channel: Annotated[str, typer.Option(help="a channel; empty: as the experiment says")] = "",
) -> None:
    """Ask the running server to rank.

    Example: [bold]headrace rank 42 -k 5[/bold]
    """
    from deploy.local.http_client import Client

    answer = Client(context.obj).rank(user, candidates or "all", k=k, channel=channel)
    version = "no version yet" if answer["cold"] else f"{answer['version']}+{answer['delta']}"
    table = Table(title=f"user {user}: {version} ({answer['variant']})")
    for name in ("rank", "item", "score"):
        table.add_column(name)
    for position, item in enumerate(answer["items"], 1):
        table.add_row(str(position), item["item_id"], f"{item['score']:.4f}")
    out.print(table)


@app.command()
def rollback(
    context: typer.Context,
    channel: Annotated[str, typer.Argument(help="the channel")] = "champion",
    to: Annotated[str, typer.Option(help="a version; empty: the one before")] = "",
) -> None:
    """Serve an earlier version of a channel until [bold]resume[/bold]; servers follow in a second.

    Example: [bold]headrace rollback champion[/bold]
    """
    from inttower.publish.store import ModelStore

    version = ModelStore(context.obj.store_url).rollback(channel, to or None)
    out.print(f"{channel} now points to {version}, until `headrace resume {channel}`")


@app.command()
def resume(
    context: typer.Context,
    channel: Annotated[str, typer.Argument(help="the channel")] = "champion",
) -> None:
    """End a rollback: the newest version that passes the quality gate serves again.

    Example: [bold]headrace resume champion[/bold]
    """
    from inttower.publish.store import ModelStore

    version = ModelStore(context.obj.store_url).resume(channel)
    out.print(f"{channel} now points to {version}" if version else f"{channel} has no version yet")


@experiment_app.command("report")
def experiment_report(context: typer.Context, json_file: JsonFile = None) -> None:
    """Exposures, clicks, CTR with an interval and AUC as served, for each variant.

    Example: [bold]headrace experiment report --json ab.json[/bold]
    """
    from headrace.experiment import as_json, gather, show

    found = gather(context.obj)
    show(found, out)
    _write_json(json_file, as_json(found))


@app.command()
def part(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="topics, clock, job, writer, trainer or server")],
) -> None:
    """Run one part in the foreground, as the containers do.

    Example: [bold]HEADRACE_KAFKA__BOOTSTRAP=kafka:9092 headrace part trainer[/bold]
    """
    from deploy.local.parts import exec_component

    exec_component(context.obj, name)


@app.command()
def settings(context: typer.Context) -> None:
    """Print every setting with its current value.

    Example: [bold]headrace --set kafka.partitions=4 settings[/bold]
    """
    out.print_json(context.obj.model_dump_json())


@app.command()
def doctor(context: typer.Context) -> None:
    """Check Python, Java, jars, ports, disk and leftover processes, and say how to fix each.

    Example: [bold]headrace doctor[/bold]
    """
    from headrace.doctor import examine

    bad = 0
    for finding in examine(context.obj):
        bad += not finding.ok
        out.print(f"{'[green]ok' if finding.ok else '[red]no'}[/] {finding.check}: {finding.found}")
        if not finding.ok:
            out.print(f"   fix: {finding.cure}")
    if bad:
        raise typer.Exit(1)


@app.command()
def reset(
    context: typer.Context,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False,
) -> None:
    """Stop leftover processes and delete all local data: topics, checkpoints, versions.

    Example: [bold]headrace --state .headrace reset --yes[/bold]
    """
    from deploy.local.reset_state import reset_state
    from deploy.local.state_lock import state_lock

    state = context.obj.state
    if not yes:
        typer.confirm(f"Delete everything in {state}?", abort=True)
    with ExitStack() as locks:
        for folder in (state, state / "demo"):
            if folder.exists():
                locks.enter_context(state_lock(folder, "headrace reset"))
        for line in reset_state(context.obj):
            out.print(line)


def _write_json(path: Path | None, data: Any) -> None:  # noqa: ANN401 - whatever JSON can hold
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")


def _leave(number: int, _frame: FrameType | None) -> None:
    """Exit by an exception, so that a command stops the parts that it has started."""
    # a process group may get the signal twice; the second must not interrupt the clean stop
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + number)


def main() -> None:
    """Run the command line; our errors are one message and exit code 1, without a traceback."""
    signal.signal(signal.SIGTERM, _leave)
    tune_gc()
    try:
        app()
    except (HeadraceError, IntTowerError) as error:
        print(f"headrace: {error}", file=sys.stderr)
        sys.exit(1)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(part) for part in problem["loc"])
            print(f"headrace: setting {name}: {problem['msg']}", file=sys.stderr)
        sys.exit(1)
