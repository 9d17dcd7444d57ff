"""``headrace bench``: one command a bench. Each loads only what it needs."""

# imports in commands: torch and matplotlib load slowly; typer makes options of arguments

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from bench.session import Options

bench = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="What the models and the system are worth, measured. Results are JSON lines with a plot"
    " beside them; a bench that was stopped goes on where it was.",
)

out = Console()
if not out.is_terminal:
    out.width = 140  # nobody's window: a figure must not be cut off

LogName = Annotated[
    str, typer.Option("--log", help="ml-100k (fetched), ml-1m, amazon-electronics, …")
]
LogPath = Annotated[Path | None, typer.Option("--path", help="the folder of the log's files")]
Sample = Annotated[float, typer.Option(help="read this first part of the log only: a quick look")]
OutFolder = Annotated[Path, typer.Option("--out", help="the folder of results")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="also write the result there")]
Threads = Annotated[int, typer.Option(min=1, help="threads of torch")]
Seeds = Annotated[int, typer.Option(min=1, help="runs of each, with seeds 0, 1, …")]
ModelNames = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="may be repeated; behind a name, in the benches in time order, +state: with the user"
        " state beside it; behind that +bf16: products in bfloat16",
    ),
]
Refreshes = Annotated[
    list[str] | None,
    typer.Option("--refresh", help="events (256) or time (5h) between refreshes; repeatable"),
]
WarmUp = Annotated[
    float, typer.Option(min=0.01, max=0.99, help="the part of the log that is learnt first")
]
BatchRows = Annotated[int, typer.Option("--batch", min=1, help="rows of a learning step")]

RESULTS = Path("bench-results")


def _options(
    log: str, path: Path | None, sample: float, folder: Path, json_file: Path | None, threads: int
) -> Options:
    import torch

    from bench.session import Options

    torch.set_num_threads(threads)
    return Options(log, path, sample, folder, json_file, threads, out)


@bench.command()
def online(
    log: LogName = "ml-100k",
    path: LogPath = None,
    models: ModelNames = None,
    warm_ups: Annotated[
        list[float] | None,
        typer.Option("--warm-up", min=0.01, max=0.99, help="may be repeated; default .5 and .8"),
    ] = None,
    batch: BatchRows = 64,
    refreshes: Refreshes = None,
    refit: Annotated[
        int | None,
        typer.Option(min=1, help="rows after which the user state's factors are fitted again"),
    ] = None,
    seeds: Seeds = 1,
    sample: Sample = 1.0,
    folder: OutFolder = RESULTS,
    json_file: JsonFile = None,
    threads: Threads = 1,
) -> None:
    """Predict, then learn: frozen, frozen weights, refreshed weights, online.

    Example: [bold]headrace bench online --log ml-1m --path ~/ml-1m --warm-up .8 --seeds 3[/bold]
    """
    from bench.online import bench_online

    bench_online(
        _options(log, path, sample, folder, json_file, threads),
        models=models or ["lr", "inttower"],
        warm_ups=warm_ups or [0.5, 0.8],
        batch=batch,
        refreshes=refreshes or [],
        seeds=seeds,
        refit_every=refit,
    )


@bench.command()
def sync(
    log: LogName = "ml-100k",
    path: LogPath = None,
    models: ModelNames = None,
    warm_up: WarmUp = 0.5,
    batch: BatchRows = 64,
    refreshes: Refreshes = None,
    seeds: Seeds = 1,
    sample: Sample = 1.0,
    folder: OutFolder = RESULTS,
    json_file: JsonFile = None,
    threads: Threads = 1,
) -> None:
    """AUC against the age of the served weights, with ids alone and with live features.

    Example: [bold]headrace bench sync --log ml-1m --path ~/ml-1m --refresh 7d --refresh 1h[/bold]
    """
    from bench.sync import AGES, bench_sync

    bench_sync(
        _options(log, path, sample, folder, json_file, threads),
        models=models or ["inttower"],
        warm_up=warm_up,
        batch=batch,
        refreshes=refreshes or AGES,
        seeds=seeds,
    )


@bench.command()
def delay(
    log: LogName = "ml-100k",
    path: LogPath = None,
    models: ModelNames = None,
    warm_up: WarmUp = 0.8,
    batch: BatchRows = 64,
    lags: Annotated[
        list[str] | None,
        typer.Option("--lag", help="0s, 10s, 5min, 1d, or events between refreshes (256)"),
    ] = None,
    seeds: Seeds = 1,
    sample: Sample = 1.0,
    folder: OutFolder = RESULTS,
    json_file: JsonFile = None,
    threads: Threads = 1,
) -> None:
    """AUC against the age of the counters that the model reads.

    Example: [bold]headrace bench delay --log ml-1m --path ~/ml-1m --lag 0s --lag 1h[/bold]
    """
    from bench.delay import LAGS, bench_delay

    bench_delay(
        _options(log, path, sample, folder, json_file, threads),
        models=models or ["lr", "inttower"],
        warm_up=warm_up,
        batch=batch,
        lags=lags or LAGS,
        seeds=seeds,
    )


@bench.command()
def table(
    log: LogName = "ml-100k",
    path: LogPath = None,
    models: ModelNames = None,
    protocols: Annotated[
        list[str] | None, typer.Option("--protocol", help="leak-free, leaky; default both")
    ] = None,
    seeds: Seeds = 1,
    sample: Sample = 1.0,
    folder: OutFolder = RESULTS,
    json_file: JsonFile = None,
    threads: Threads = 1,
) -> None:
    """All models on a random 80/20 split without the leak, beside the paper's protocol and figures.

    Example: [bold]headrace bench table --log ml-1m --path ~/ml-1m --seeds 3[/bold]
    """
    from bench.split import PROTOCOLS
    from bench.table import bench_table

    bench_table(
        _options(log, path, sample, folder, json_file, threads),
        models=models,
        protocols=protocols or list(PROTOCOLS),
        seeds=seeds,
    )


@bench.command()
def loop(
    context: typer.Context,
    log: LogName = "ml-100k",
    path: LogPath = None,
    warm_up: WarmUp = 0.8,
    live: Annotated[int, typer.Option(min=100, help="events sent live, the log's last")] = 6000,
    rate: Annotated[float, typer.Option(help="live events a second")] = 200.0,
    candidates: Annotated[int, typer.Option(min=1, help="of a ranking")] = 1000,
    requests: Annotated[int, typer.Option(min=1, help="rankings that are timed")] = 1000,
    sample: Sample = 1.0,
    folder: OutFolder = RESULTS,
    json_file: JsonFile = None,
) -> None:
    """The whole system: events a second, AUC through the pipeline, ranking time, freshness, memory.

    Example: [bold]headrace bench loop --log ml-1m --path ~/ml-1m[/bold]
    """
    from bench.session import Options
    from bench.whole_loop import bench_loop

    # no model runs in this process: PyTorch would be half a gigabyte of what is measured
    bench_loop(
        context.obj,
        Options(log, path, sample, folder, json_file, 1, out),
        warm_up=warm_up,
        live=live,
        rate=rate,
        candidates=candidates,
        requests=requests,
    )


@bench.command()
def train(
    log: LogName = "ml-100k",
    path: LogPath = None,
    models: ModelNames = None,
    batches: Annotated[
        list[int] | None,
        typer.Option("--batch", min=1, help="may be repeated; default 512 and 2048"),
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="rows that each learns once")] = 100_000,
    sample: Sample = 1.0,
    folder: OutFolder = RESULTS,
    json_file: JsonFile = None,
    threads: Threads = 2,
) -> None:
    """Samples a second that each model learns, beside a plain PyTorch IntTower.

    Example: [bold]headrace bench train --batch 2048 --threads 2[/bold]
    """
    from bench.train import bench_train

    bench_train(
        _options(log, path, sample, folder, json_file, threads),
        models=models,
        batches=batches or [512, 2048],
        rows=rows,
    )


@bench.command()
def score(
    heads: Annotated[
        list[int] | None, typer.Option("--heads", min=1, help="may be repeated; default 1, 4, 32")
    ] = None,
    items: Annotated[
        list[int] | None,
        typer.Option("--items", min=1, help="may be repeated; default 100 to 10,000"),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="how often each way is run")] = 20,
    folder: OutFolder = RESULTS,
    json_file: JsonFile = None,
    threads: Threads = 1,
) -> None:
    """Candidates a second of the FE score, against the naive formula and other ways, in turn.

    Example: [bold]headrace bench score --heads 4 --items 10000[/bold]
    """
    from bench.score import HEADS, ITEMS, bench_score

    bench_score(
        _options("random", None, 1.0, folder, json_file, threads),
        heads=heads or HEADS,
        items=items or ITEMS,
        rounds=rounds,
    )
