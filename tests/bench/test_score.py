"""The score bench: all ways give the same scores, and a stopped run goes on where it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from bench.results import Options
from bench.score import LIBRARY, NAIVE, bench_score, naive, ways


@pytest.mark.parametrize(("layers", "heads", "size", "n"), [(1, 1, 1, 1), (3, 4, 16, 300)])
def test_all_ways_agree(layers: int, heads: int, size: int, n: int) -> None:
    random = torch.Generator().manual_seed(0)
    user = torch.randn(layers, heads, size, generator=random)
    items = torch.randn(n, heads, size, generator=random)
    want = naive(user.double(), items.double()).numpy()
    for name, way in ways(user, items).items():
        tolerance = 0.5 if "bf16" in name else 1e-4
        np.testing.assert_allclose(np.asarray(way()), want, atol=tolerance, err_msg=name)


def test_writes_rows_and_a_plot_and_does_not_repeat_itself(tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    options = Options("random", None, 1.0, tmp_path / "out", answer, 1, Console(quiet=True))
    rows = bench_score(options, heads=[1, 2], items=[10, 50], size=8, rounds=2)
    assert len(rows) == 2 * 2 * 8
    one = next(r for r in rows if r.key["way"] == NAIVE)
    assert one.figures["times_naive"] == 1
    assert one.figures["candidates_per_second"] > 0
    again = bench_score(options, heads=[1, 2], items=[10, 50], size=8, rounds=2)
    assert [r.figures for r in again] == [r.figures for r in rows]
    assert (tmp_path / "out" / "score-random.png").stat().st_size > 1_000
    found = json.loads(answer.read_text())
    assert {r["key"]["way"] for r in found["rows"]} >= {NAIVE, LIBRARY}
