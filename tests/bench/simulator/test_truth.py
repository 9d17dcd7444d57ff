"""What the simulator says of the truth is true."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from bench.simulator.log_files import item_id
from bench.simulator.truth import mean_and_error, truth_of_rankings, truth_of_shown
from bench.simulator.world import DAY_MS, SimulatedWorld
from bench.simulator.world_settings import preset_world
from bench.simulator.write_offline import write_offline
from headrace.cli import app
from streaming.events import Click, Impression
from streaming.logs.choose import find_log


@pytest.fixture(scope="module")
def world() -> SimulatedWorld:
    return SimulatedWorld(preset_world("news"), seed=1, requests=500, span_ms=DAY_MS)


def test_the_best_auc_is_that_of_the_true_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(1, 5, 40_000)
    seen = p * rng.choice([1.0, 0.5], 40_000)
    clicked = rng.random(40_000) < seen
    truth = truth_of_shown(p, seen, clicked, seen)
    assert truth.best_auc == pytest.approx(roc_auc_score(clicked, seen))
    assert truth.best_auc_unplaced == pytest.approx(roc_auc_score(clicked, p))
    assert truth.served_auc == truth.best_auc
    assert truth.predicted_over_true == pytest.approx(1.0)
    # nobody who knows less does better
    worse = truth_of_shown(p, seen, clicked, np.clip(p + rng.normal(0, 0.1, 40_000), 0.01, 0.99))
    assert worse.served_auc is not None
    assert truth.best_auc is not None
    assert worse.served_auc < truth.best_auc
    tripled = truth_of_shown(p, p, clicked, np.full(40_000, 3 * p.mean()))
    assert tripled.predicted_over_true == pytest.approx(3.0)
    half_scored = np.where(np.arange(40_000) % 2, seen, np.nan)
    assert truth_of_shown(p, seen, clicked, half_scored).predicted_over_true == pytest.approx(1.0)


def test_only_the_best_order_has_no_regret(world: SimulatedWorld) -> None:
    requests = world.requests
    candidates = world.candidates(requests)
    logits = world.logits(requests, candidates)
    best = np.take_along_axis(candidates, np.argsort(-logits, axis=1), axis=1)
    perfect = truth_of_rankings(world, requests, candidates, best)
    assert perfect.regret == pytest.approx(np.zeros(len(requests)))
    reverse = truth_of_rankings(world, requests, candidates, best[:, ::-1])
    assert (reverse.regret > 0).all()
    some = np.random.default_rng(0).permuted(candidates, axis=1)
    random = truth_of_rankings(world, requests, candidates, some)
    assert random.served.mean() == pytest.approx(random.random.mean(), rel=0.05)


def test_an_error_of_a_mean_counts_users_not_rows() -> None:
    rng = np.random.default_rng(0)
    means = []
    errors = []
    for _ in range(300):
        users = np.repeat(np.arange(50), 10)
        mean, error = mean_and_error(rng.normal(size=50)[users], users)
        means.append(mean)
        errors.append(error)
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.15)


def test_a_log_in_files_agrees_with_its_truth_and_repeats(tmp_path: Path) -> None:
    run = CliRunner()
    reports = []
    for folder in ("one", "two"):
        arguments = ["simulate", "--offline", str(tmp_path / folder), "--impressions", "30000"]
        arguments += ["--preset", "shop", "--seed", "3", "--json", str(tmp_path / f"{folder}.json")]
        arguments += ["--with", "delivery.lost_share=0.05", "--with", "clicks.rate=0.05"]
        done = run.invoke(app, arguments)
        assert done.exit_code == 0, done.output
        reports.append(json.loads((tmp_path / f"{folder}.json").read_text()))
    tables = {
        path.stem: pq.read_table(path).to_pandas() for path in (tmp_path / "one").glob("*.parquet")
    }
    for path in (tmp_path / "one").glob("*.parquet"):
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    written = reports[0]["written"]
    truth, shown, acted = (tables[n] for n in ("truth", "impressions", "actions"))
    assert len(truth) == 30_000
    assert len(shown) == written["impressions"]
    assert len(acted) == written["actions"]
    key = ["request_id", "item_id"]
    unique = shown.drop_duplicates(key)
    assert len(unique) == (~truth.lost).sum()
    assert truth.lost.mean() == pytest.approx(0.05, abs=0.01)
    clicks = acted[acted.action == "click"].drop_duplicates("event_id").merge(truth, on=key)
    assert clicks.clicked.all()
    assert len(clicks) / truth.clicked.sum() == pytest.approx(0.95, abs=0.02)
    assert (clicks.arrival > clicks.shown_at).all()
    assert reports[0]["truth"]["best_auc"] == pytest.approx(
        roc_auc_score(truth.clicked, truth.seen_probability)
    )
    assert set(shown.item_id) <= set(tables["items"].item_id)
    assert set(shown.user_id) <= set(tables["users"].user_id)
    assert reports[0]["events_per_second"] > 20_000 / 4  # other tests run beside this one


def test_the_declared_log_is_the_one_that_was_simulated(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    made = SimulatedWorld(preset_world("shop"), seed=1, requests=200, span_ms=DAY_MS)
    write_offline(
        made, folder, "simulated-shop", policy="random", progress=lambda _done, _all: None
    )
    read = find_log(str(folder / "log.toml"), None)
    events = list(read.events())
    shown = [event for event in events if isinstance(event, Impression)]
    acted = [event for event in events if isinstance(event, Click)]
    truth = pq.read_table(folder / "truth.parquet").to_pandas()
    assert {(e.request_id, e.item_id, e.position) for e in shown} == set(
        zip(truth.request_id, truth.item_id, truth.position, strict=True)
    )
    clicked = truth[truth.clicked]
    assert {(e.request_id, e.item_id) for e in acted if e.action in {None, "click"}} == set(
        zip(clicked.request_id, clicked.item_id, strict=True)
    )
    assert read.attribution_ms == 86_400_000
    assert {entity.id for entity in read.items()} == {
        item_id(row) for row in range(len(made.items))
    }
    arrivals = list(read.arrivals())
    assert len(arrivals) == len(events) == read.count
    assert arrivals == sorted(arrivals)
    assert read.span == (arrivals[0], arrivals[-1])
    late = sum(known - event.ts > 1_000 for event, known in zip(events, arrivals, strict=True))
    assert late > 0
    files = [pq.read_table(folder / f"{name}.parquet") for name in ("impressions", "actions")]
    said = sorted(known for file in files for known in file["arrival"].to_pylist())
    # impressions that were delivered twice are there once, as they first arrived
    assert set(arrivals) <= set(said)
    assert list(read.arrivals(5, 9)) == arrivals[5:9]
    assert read.index_at(arrivals[7]) == arrivals.index(arrivals[7])
    [first, *_] = shown
    assert set(first.context or {}) == {"device", "page", "hour"}
