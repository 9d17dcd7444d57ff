"""What a session of a bench tells of its log."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from bench.results import Key, Options
from bench.session import SAMPLED, Report, Session, Unit
from tests.streaming.logs.small_logs import ROWS

TOML = """
name = "films"
[events]
files = "rows.csv"
user = "user"
item = "item"
time = {column = "time", unit = "s"}
"""


@pytest.mark.parametrize(
    ("outcome", "sampled"),
    [("[negatives]", True), ('click = "rating > 3"', False)],
)
def test_figures_of_sampled_negatives_say_so(tmp_path: Path, outcome: str, sampled: bool) -> None:
    (tmp_path / "rows.csv").write_text(ROWS)
    (tmp_path / "films.toml").write_text(TOML + outcome)
    text = io.StringIO()
    options = Options(
        log=str(tmp_path / "films.toml"),
        path=None,
        sample=1.0,
        out=tmp_path / "out",
        json_file=tmp_path / "found.json",
        threads=1,
        console=Console(file=text, width=400),
    )

    def measure(_: Report) -> Iterator[tuple[Key, Mapping[str, Any]]]:
        yield {}, {"auc": 0.5}

    # the second session finds the rows of the first one, and must say the same
    for _ in range(2):
        session = Session("online", options)
        session.open()
        rows = session.measure([Unit("one", {"model": "m"}, 1, measure)])
        session.finish(rows, Table("AUC", title="predict, then learn"), Figure())
        found = json.loads((tmp_path / "found.json").read_text())
        assert found[SAMPLED] == (["films"] if sampled else [])
        assert [row["figures"] for row in found["rows"]] == [
            {"auc": 0.5, SAMPLED: True} if sampled else {"auc": 0.5}
        ]
        assert ("negativesaresampled:films" in "".join(text.getvalue().split())) == sampled
