"""``headrace bench``: one command a bench. Each loads only what it needs."""

# imports in commands: torch and matplotlib load slowly; typer makes options of arguments

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from bench.results import Options

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Measure models and system. Results are JSON lines and a plot; a bench that was stopped"
    " resumes where it was.",
)

out = Console()
if not out.is_terminal:
    out.width = 140  # not a terminal: no figure must be cut off

Seeds = Annotated[int, typer.Option(min=1, help="runs of each, with seeds 0, 1, …")]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="may be repeated; append +state for the user state (benches in time order), then +bf16"
        " for products in bfloat16",
    ),
]
Refreshes = Annotated[
    list[str] | None,
    typer.Option("--refresh", help="events (256) or time (5h) between refreshes; repeatable"),
]
WarmUp = Annotated[
    float, typer.Option(min=0.01, max=0.99, help="share of the log that is learnt first")
]
BatchRows = Annotated[int, typer.Option("--batch", min=1, help="rows of a learning step")]

Command = Callable[..., None]


def _log_options(
    log: Annotated[
        str,
        typer.Option(
            "--log", help="a TOML that declares a log, or a name: ml-100k (fetched), ml-1m, …"
        ),
    ] = "ml-100k",
    path: Annotated[
        Path | None, typer.Option("--path", help="the folder of the log's files")
    ] = None,
    sample: Annotated[
        float, typer.Option(help="read only this first share of the log, for a quick look")
    ] = 1.0,
) -> None:
    """Options of benches that read a log."""


def _output_options(
    folder: Annotated[Path, typer.Option("--out", help="the folder of results")] = Path(
        "bench-results"
    ),
    json_file: Annotated[
        Path | None, typer.Option("--json", help="also write the result there")
    ] = None,
) -> None:
    """Options of all benches: where results go."""


def _torch_options(
    threads: Annotated[int, typer.Option(min=1, help="threads of torch")] = 1,
) -> None:
    """Options of benches that run models."""


def _parameters(function: Command) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function, eval_str=True).parameters)


def bench_command(*, log: bool = True, threads: int | None = 1) -> Callable[[Command], Command]:
    """Make a bench a command, with the shared options after its own.

    Args:
        log: the bench reads a log; otherwise its rows say ``random``.
        threads: default number of PyTorch threads; None: no model runs in this process.

    Returns:
        The decorator. The bench takes ``options`` first, a :class:`bench.session.Options`.
    """
    shared = {
        **(_parameters(_log_options) if log else {}),
        **_parameters(_output_options),
        **({} if threads is None else _parameters(_torch_options)),
    }
    if threads is not None:
        shared["threads"] = shared["threads"].replace(default=threads)

    def decorate(function: Command) -> Command:
        def command(**given: Any) -> None:  # noqa: ANN401 - options are of many types
            values = {name: given.pop(name) for name in shared}
            if threads is not None:
                from torch import set_num_threads

                set_num_threads(values["threads"])
            options = Options(
                log=values.get("log", "random"),
                path=values.get("path"),
                sample=values.get("sample", 1.0),
                out=values["folder"],
                json_file=values["json_file"],
                threads=values.get("threads", 1),
                console=out,
            )
            function(options, **given)

        own = list(_parameters(function).values())[1:]
        parameters = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for parameter in (*own, *shared.values())
        ]
        # what typer reads
        command.__doc__, command.__name__ = function.__doc__, function.__name__
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return bench.command()(command)

    return decorate


@bench_command()
def online(
    options: Options,
    models: ModelNames = None,
    warm_ups: Annotated[
        list[float] | None,
        typer.Option("--warm-up", min=0.01, max=0.99, help="may be repeated; default .8"),
    ] = None,
    batch: BatchRows = 64,
    refreshes: Refreshes = None,
    refit: Annotated[
        int | None,
        typer.Option(min=1, help="rows between two refits of the user state's factors"),
    ] = None,
    seeds: Seeds = 1,
) -> None:
    """Predict, then learn: the default model and its parts, or others: frozen, refreshed, online.

    Example: [bold]headrace bench online --log ml-1m --path ~/ml-1m --warm-up .8 --seeds 3[/bold]
    """
    from bench.online import bench_online

    bench_online(
        options,
        models=models or ["stacked"],
        warm_ups=warm_ups or [0.8],
        batch=batch,
        refreshes=refreshes or [],
        seeds=seeds,
        refit_every=refit,
    )


@bench_command(log=False)
def all(
    options: Options,
    logs: Annotated[
        Path, typer.Option(help="folder of logs: TOMLs, and folders of shipped logs by name")
    ],
    rivals: Annotated[
        list[str] | None,
        typer.Option("--model", help="run as well as the default; default: dcn, deepfm"),
    ] = None,
    warm_up: WarmUp = 0.8,
) -> None:
    """Every log: the default model, its parts, what is simple, and other models, in one table.

    Example: [bold]headrace bench all --logs ~/logs[/bold]
    """
    from bench.stack.all_logs import RIVALS, bench_all

    bench_all(options, logs=logs, rivals=rivals or RIVALS, warm_up=warm_up)


@bench_command()
def windows(
    options: Options,
    windows: Annotated[int, typer.Option("--windows", min=2, help="parts of equal time")] = 5,
) -> None:
    """Learn all windows before, predict the next: weights that are kept as they are, and online.

    Example: [bold]headrace bench windows --log ml-1m --path ~/ml-1m[/bold]
    """
    from bench.stack.windows import bench_windows

    bench_windows(options, windows=windows)


@bench_command()
def sync(
    options: Options,
    models: ModelNames = None,
    warm_up: WarmUp = 0.5,
    batch: BatchRows = 64,
    refreshes: Refreshes = None,
    seeds: Seeds = 1,
) -> None:
    """AUC against the age of the served weights, with ids only and with live features.

    Example: [bold]headrace bench sync --log ml-1m --path ~/ml-1m --refresh 7d --refresh 1h[/bold]
    """
    from bench.sync import AGES, bench_sync

    bench_sync(
        options,
        models=models or ["inttower"],
        warm_up=warm_up,
        batch=batch,
        refreshes=refreshes or AGES,
        seeds=seeds,
    )


@bench_command()
def delay(
    options: Options,
    models: ModelNames = None,
    warm_up: WarmUp = 0.8,
    batch: BatchRows = 64,
    lags: Annotated[
        list[str] | None,
        typer.Option("--lag", help="0s, 10s, 5min, 1d, or events between refreshes (256)"),
    ] = None,
    seeds: Seeds = 1,
) -> None:
    """AUC against the age of the counters that the model reads.

    Example: [bold]headrace bench delay --log ml-1m --path ~/ml-1m --lag 0s --lag 1h[/bold]
    """
    from bench.delay import LAGS, bench_delay

    bench_delay(
        options,
        models=models or ["lr", "inttower"],
        warm_up=warm_up,
        batch=batch,
        lags=lags or LAGS,
        seeds=seeds,
    )


@bench_command()
def table(
    options: Options,
    models: ModelNames = None,
    protocols: Annotated[
        list[str] | None, typer.Option("--protocol", help="leak-free, leaky; default both")
    ] = None,
    seeds: Seeds = 1,
) -> None:
    """All models on a random 80/20 split without the leak; also the paper's protocol and figures.

    Example: [bold]headrace bench table --log ml-1m --path ~/ml-1m --seeds 3[/bold]
    """
    from bench.split import PROTOCOLS
    from bench.table import bench_table

    bench_table(
        options,
        models=models,
        protocols=protocols or list(PROTOCOLS),
        seeds=seeds,
    )


# no model runs in this process: PyTorch would add half a gigabyte to what is measured
@bench_command(threads=None)
def loop(
    options: Options,
    context: typer.Context,
    warm_up: WarmUp = 0.8,
    live: Annotated[int, typer.Option(min=100, help="events sent live, the log's last")] = 6000,
    rate: Annotated[float, typer.Option(help="live events a second")] = 200.0,
    candidates: Annotated[int, typer.Option(min=1, help="of a ranking")] = 1000,
    requests: Annotated[int, typer.Option(min=1, help="rankings that are timed")] = 1000,
) -> None:
    """The whole system: events a second, AUC through the pipeline, ranking time, freshness, memory.

    Example: [bold]headrace bench loop --log ml-1m --path ~/ml-1m[/bold]
    """
    from bench.whole_loop import bench_loop

    bench_loop(
        context.obj,
        options,
        warm_up=warm_up,
        live=live,
        rate=rate,
        candidates=candidates,
        requests=requests,
    )


@bench_command(log=False, threads=None)
def live(
    options: Options,
    context: typer.Context,
    preset: Annotated[str, typer.Option(help="the world: news, shop, video, ads")] = "news",
    change: Annotated[
        list[str] | None,
        typer.Option("--with", help="one setting of the world, as clicks.rate=0.001; repeatable"),
    ] = None,
    seconds: Annotated[float, typer.Option(min=10, help="how long each run is driven")] = 500.0,
    rate: Annotated[float, typer.Option(min=1, help="events a second")] = 200.0,
    speed: Annotated[
        float, typer.Option(min=0.1, help="the world's seconds in one: windows and delays shrink")
    ] = 20.0,
    seeds: Seeds = 1,
) -> None:
    """The running system under simulated live traffic, late and with an outage: what is to reach.

    Example: [bold]headrace bench live --preset shop --seeds 5[/bold]
    """
    from bench.simulator.live import OUTAGE, bench_live
    from bench.simulator.world_settings import changed_world, preset_world

    bench_live(
        context.obj,
        options,
        preset=preset,
        world=changed_world(preset_world(preset).with_changes(OUTAGE), change or []),
        seconds=seconds,
        rate=rate,
        speed=speed,
        seeds=seeds,
    )


@bench_command(threads=2)
def train(
    options: Options,
    models: ModelNames = None,
    batches: Annotated[
        list[int] | None,
        typer.Option("--batch", min=1, help="may be repeated; default 512 and 2048"),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="rows that each learns once")] = 100_000,
) -> None:
    """Samples a second that each model learns, compared with a plain PyTorch IntTower.

    Example: [bold]headrace bench train --batch 2048 --threads 2[/bold]
    """
    from bench.train import bench_train

    bench_train(
        options,
        models=models,
        batches=batches or [512, 2048],
        rows=rows,
    )


@bench_command(log=False)
def score(
    options: Options,
    heads: Annotated[
        list[int] | None, typer.Option("--heads", min=1, help="may be repeated; default 1, 4, 32")
    ] = None,
    items: Annotated[
        list[int] | None,
        typer.Option("--items", min=1, help="may be repeated; default 100 to 10,000"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="how often each way is run")] = 20,
) -> None:
    """Candidates a second of the FE score, compared with the naive formula and other ways.

    Example: [bold]headrace bench score --heads 4 --items 10000[/bold]
    """
    from bench.score import HEADS, ITEMS, bench_score

    bench_score(
        options,
        heads=heads or HEADS,
        items=items or ITEMS,
        rounds=rounds,
    )
