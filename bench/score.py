"""``bench score``: candidates a second of the FE score, against the naive formula and other ways.

Random vectors, one user, N items. Each round runs every way in turn, so that other load on the
machine hits all of them; the best round of each counts. The peak is that of a large square GEMM in
the same rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from rich.table import Table
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.results import Key, Options, Row
from bench.session import Report, Session, Unit
from inttower.publish.scorer import fe_scores

Array = npt.NDArray[np.float32]
Way = Callable[[], Tensor | Array]

NAIVE = "naive"
LIBRARY = "headrace"
HEADS = [1, 4, 32]
ITEMS = [100, 1_000, 10_000]
_PEAK_SIDE = 1024


def naive(user: Tensor, items: Tensor) -> Tensor:
    """The reference formula: the user repeated for each item, a small product for each pair.

    Args:
        user: [L, H, p].
        items: [N, H, p].
    """
    scores = torch.zeros(len(items))
    for layer in user:
        repeated = layer.unsqueeze(0).repeat(len(items), 1, 1)  # [N, H, p]
        products = torch.matmul(repeated, items.transpose(1, 2))  # [N, H, H]
        scores += products.max(dim=2).values.sum(dim=1)
    return scores


def torch_unblocked(user: Tensor, items: Tensor) -> Tensor:
    """One GEMM over all items, reduced by torch."""
    heads, size = user.shape[1:]
    columns = user.reshape(-1, size).T.contiguous()  # [p, L·H]
    products = items.reshape(-1, size) @ columns  # [N·H, L·H]
    return products.view(len(items), heads, -1).amax(1).sum(1)


def torch_by_head(user: Tensor, items: Tensor) -> Tensor:
    """A GEMM for each item head, with a running maximum."""
    rows = user.reshape(-1, user.shape[2])  # [L·H, p]
    best = rows @ items[:, 0].T  # [L·H, N]
    for head in range(1, items.shape[1]):
        torch.maximum(best, rows @ items[:, head].T, out=best)
    return best.sum(0)


def numpy_unblocked(user: Array, items: Array) -> Array:
    """One GEMM over all items, reduced by numpy."""
    heads, size = user.shape[1:]
    products = items.reshape(-1, size) @ user.reshape(-1, size).T
    scores: Array = products.reshape(len(items), heads, -1).max(1).sum(1)
    return scores


def _loops(user: Array, items: Array) -> Array:
    """No GEMM: plain loops whose sums may be vectorised."""
    n, heads, size = items.shape
    scores = np.zeros(n, np.float32)
    for j in range(n):
        for i in range(len(user)):
            for a in range(heads):
                best = np.float32(-np.inf)
                for b in range(heads):
                    product = np.float32(0)
                    for k in range(size):
                        product += user[i, a, k] * items[j, b, k]
                    best = max(best, product)
                scores[j] += best
    return scores


numba_loops: Callable[[Array, Array], Array] = numba.njit(fastmath=True, cache=True)(_loops)


def ways(user: Tensor, items: Tensor) -> dict[str, Way]:
    """Every way to score [N, H, p] items, by its name in the results."""
    u, v = user.numpy(), items.numpy()
    rows, half = items.flatten(1), items.flatten(1).bfloat16()
    return {
        NAIVE: lambda: naive(user, items),
        "torch, unblocked": lambda: torch_unblocked(user, items),
        "torch, by head": lambda: torch_by_head(user, items),
        "numpy, unblocked": lambda: numpy_unblocked(u, v),
        "numba loops": lambda: numba_loops(u, v),
        LIBRARY: lambda: fe_scores(user, rows),
        f"{LIBRARY}, arrays": lambda: fe_scores(u, rows.numpy()),
        f"{LIBRARY}, bf16 items": lambda: fe_scores(user, half),
    }


def bench_score(
    options: Options,
    *,
    heads: Sequence[int] = HEADS,
    items: Sequence[int] = ITEMS,
    layers: int = 3,
    size: int = 64,
    rounds: int = 20,
) -> list[Row]:
    """Run it.

    Args:
        options: files and threads; no log is read.
        heads: H, each.
        items: N, each.
        layers: L.
        size: p.
        rounds: how often each way is run.
    """
    session = Session("score", options)

    def unit(h: int, n: int) -> Unit:
        def measure(say: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
            # numpy's BLAS has thread settings of its own
            with threadpool_limits(options.threads), torch.inference_mode():
                yield from _measure((layers, h, size, n), rounds, say)

        key = {"heads": h, "items": n, "layers": layers, "size": size, "rounds": rounds}
        return Unit(f"{layers}×{h}×{size}, {n:,} items", key, count=8, measure=measure)

    rows = session.measure([unit(h, n) for h in heads for n in items])
    session.finish(rows, _table(rows), _figure(rows, heads))
    return rows


def _measure(
    shape: tuple[int, int, int, int], rounds: int, say: Report
) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    layers, heads, size, n = shape
    random = torch.Generator().manual_seed(0)
    user = torch.randn(layers, heads, size, generator=random)
    items = torch.randn(n, heads, size, generator=random)
    square = torch.randn(_PEAK_SIDE, _PEAK_SIDE, generator=random)
    rivals = ways(user, items)
    want = naive(user.double(), items.double()).numpy()
    error = {name: float(np.abs(np.asarray(way()) - want).max()) for name, way in rivals.items()}
    best, peak = dict.fromkeys(rivals, np.inf), np.inf
    for done in range(rounds):
        say("rounds", done / rounds)
        peak = min(peak, _seconds(lambda: square @ square))
        for name, way in rivals.items():
            best[name] = min(best[name], _seconds(way))
    flops_a_second = 2 * _PEAK_SIDE**3 / peak
    for name, seconds in best.items():
        yield (
            {"way": name},
            {
                "milliseconds": seconds * 1e3,
                "candidates_per_second": n / seconds,
                "times_naive": best[NAIVE] / seconds,
                "share_of_peak": 2 * layers * heads**2 * size * n / seconds / flops_a_second,
                "peak_gflops": flops_a_second / 1e9,
                "largest_error": error[name],
            },
        )


def _seconds(way: Callable[[], object]) -> float:
    start = time.perf_counter()
    way()
    return time.perf_counter() - start


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title="FE score of one user, best round")
    for column in ("heads", "items", "way", "ms", "candidates/s", "× naive", "of peak"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for row in rows:
        found = row.figures
        table.add_row(
            f"{row.key['layers']}×{row.key['heads']}×{row.key['size']}",
            f"{row.key['items']:,}",
            row.key["way"],
            f"{found['milliseconds']:.3f}",
            f"{found['candidates_per_second']:,.0f}",
            f"{found['times_naive']:.1f}",
            f"{found['share_of_peak']:.0%}",
            end_section=row.key["way"].endswith("bf16 items"),
        )
    return table


def _figure(rows: Sequence[Row], heads: Sequence[int]) -> Figure:
    figure = Figure(figsize=(5 * len(heads), 4), layout="constrained")
    panels = figure.subplots(1, len(heads), squeeze=False)[0]
    for panel, h in zip(panels, heads, strict=True):
        mine = [row for row in rows if row.key["heads"] == h]
        for way in dict.fromkeys(row.key["way"] for row in mine):
            line = [row for row in mine if row.key["way"] == way]
            panel.loglog(
                [row.key["items"] for row in line],
                [row.figures["candidates_per_second"] for row in line],
                marker="o",
                label=way,
                color={LIBRARY: "black", NAIVE: "red"}.get(way),
            )
        panel.set(title=f"{h} heads", xlabel="items", ylabel="candidates a second")
    panels[0].legend(fontsize="small")
    return figure
