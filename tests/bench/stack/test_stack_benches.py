"""The default model under test: what it may know, and figures that mean what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.log_rows import LogRows
from bench.predict_then_learn import Outcome
from bench.stack.all_logs import logs_below, mode_figures
from bench.stack.list_figures import list_figures, requests_of
from bench.stack.stacked_stream import (
    DEFAULT,
    FROZEN,
    STACKED_MODES,
    StackedProtocol,
    StackedStream,
)
from bench.stack.user_errors import errors
from features.log_arrays import LogArrays, load
from features.logs.movielens_features import MOVIELENS
from inttower.evaluate import auc, logloss
from inttower.models.stacked import StackedConfig
from settings.errors import ConfigurationError
from tests.streaming.made_up import made_up_log

LOG = load(made_up_log(1_200, users=30), MOVIELENS)


def run(log: LogArrays) -> Outcome:
    protocol = StackedProtocol(0.6, wait_ms=5_000, config=StackedConfig(states=(), epochs=1))
    return StackedStream(LogRows(MOVIELENS, log), protocol, 0, lambda _what, _part: None).run()


def turned(cut: int) -> LogArrays:
    """Equal before row ``cut``; behind it, what was clicked is not, and nothing else is."""
    labels = LOG.labels.copy()
    labels[cut:] = 0
    kept, decided = LOG.click_rows < cut, LOG.decisions.rows < cut
    clicks = replace(
        LOG.clicks,
        users=LOG.clicks.users[kept],
        items=LOG.clicks.items[kept],
        ts=LOG.clicks.ts[kept],
    )
    decisions = replace(
        LOG.decisions,
        rows=LOG.decisions.rows[decided],
        ts=LOG.decisions.ts[decided],
        labels=LOG.decisions.labels[decided],
        weights=LOG.decisions.weights[decided],
    )
    return replace(
        LOG, labels=labels, clicks=clicks, click_rows=LOG.click_rows[kept], decisions=decisions
    )


def test_each_row_is_predicted_with_nothing_that_became_known_later() -> None:
    start = int(len(LOG) * 0.6)
    cut = start + 200
    one, other = run(LOG), run(turned(cut))
    known = one.rows <= cut
    assert known.sum() > 150
    assert tuple(one.logits) == STACKED_MODES
    for mode, logits in one.logits.items():
        np.testing.assert_array_equal(logits[known], other.logits[mode][known], err_msg=mode)
    assert not np.array_equal(one.logits[DEFAULT], other.logits[DEFAULT])


def test_figures_of_the_stream_are_told_with_errors() -> None:
    outcome = run(LOG)
    rows = {key["mode"]: found for key, found in mode_figures(outcome, LogRows(MOVIELENS, LOG))}
    assert rows[DEFAULT]["auc_se"] > 0
    assert rows[FROZEN]["default_minus_logloss_se"] > 0
    assert "default_minus_auc_se" not in rows[DEFAULT]


def made_up_lists(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.int64]]:
    """Lists of ten; each user has a rate of its own, and the model knows it."""
    rng = np.random.default_rng(seed)
    requests = np.repeat(np.arange(400), 10)
    user = rng.standard_normal(400)[requests]
    z = (user + rng.standard_normal(4000)).astype(np.float32)
    labels = (rng.random(4000) < 1 / (1 + np.exp(1 - z))).astype(np.uint8)
    return z, labels, requests


def test_labels_permuted_within_requests_have_a_list_auc_of_a_half() -> None:
    z, labels, requests = made_up_lists(0)
    rng = np.random.default_rng(1)
    order = np.lexsort((rng.random(len(z)), requests))
    permuted = list_figures(z, labels[order], requests)
    assert permuted["list_auc"] == pytest.approx(0.5, abs=0.02)
    # over all rows the user's rate is still told, which is no order
    assert auc(labels[order], z) > 0.6
    found = list_figures(z, labels, requests)
    assert found["list_auc"] is not None
    assert found["list_auc"] > 0.65


def test_list_figures_do_not_see_the_users_own_terms() -> None:
    z, labels, requests = made_up_lists(2)
    shifted = z + np.random.default_rng(0).integers(-3, 3, 400)[requests].astype(np.float32)
    one, other = list_figures(z, labels, requests), list_figures(shifted, labels, requests)
    assert one["list_auc"] == pytest.approx(other["list_auc"], abs=1e-4)


def test_requests_are_of_one_user_and_time() -> None:
    numbers = requests_of(np.array([1, 1, 1, 2, 2]), np.array([3, 3, 4, 4, 4], np.int32))
    assert numbers.tolist() == [0, 0, 1, 2, 2]


def test_errors_are_those_of_a_bootstrap_over_users() -> None:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(150), 20).astype(np.int32)
    z = (rng.standard_normal(150)[users] + rng.standard_normal(3000)).astype(np.float32)
    labels = (rng.random(3000) < 1 / (1 + np.exp(-z))).astype(np.uint8)
    told_errors = errors(z, labels, users)
    found = []
    for _ in range(200):
        rows = (rng.integers(0, 150, 150)[:, None] * 20 + np.arange(20)).ravel()
        found.append((auc(labels[rows], z[rows]), logloss(labels[rows], z[rows])))
    by_auc, by_loss = np.std(found, axis=0)
    assert told_errors["auc_se"] == pytest.approx(by_auc, rel=0.2)
    assert told_errors["logloss_se"] == pytest.approx(by_loss, rel=0.2)
    assert errors(z, labels, users, z)["auc_se"] == 0


def test_logs_are_found_by_toml_and_by_the_name_of_a_shipped_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no TOML"):
        logs_below(tmp_path)
    (tmp_path / "own.toml").write_text("")
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ebnerd-demo" / "train").mkdir(parents=True)
    found = {Path(log).stem: folder for log, folder in logs_below(tmp_path)}
    assert found["own"] is None
    assert found["ml-1m"] == tmp_path / "ml-1m"
    assert found["ebnerd"] == tmp_path / "ebnerd-demo" / "train"
