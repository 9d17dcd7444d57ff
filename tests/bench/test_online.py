"""The benches in the order of time: what a prediction may know, and what a stopped bench keeps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.bench_models import contender
from bench.log_rows import LogRows, warm_up_end
from bench.predict_then_learn import Outcome, Protocol, run
from bench.refresh import Refresh
from bench.results import Results
from features.log_arrays import load
from features.logs.movielens_features import MOVIELENS
from settings.errors import ConfigurationError
from tests.streaming.made_up import made_up_log

LOG = load(made_up_log(1_200, users=30), MOVIELENS)
PROTOCOL = Protocol(0.6, batch=16, refreshes=(Refresh.parse("32"),))


def outcome(name: str, labels: NDArray[np.uint8], refit_every: int | None) -> Outcome:
    """A run with these labels; the features are those of the log's own clicks in any case."""
    one = contender(name)
    return run(
        lambda spec: one.make(spec, 0),
        LogRows(MOVIELENS, replace(LOG, labels=labels)),
        replace(PROTOCOL, refit_every=refit_every),
        state=one.state,
    )


@pytest.mark.parametrize(
    ("name", "refit_every"), [("lr", None), ("inttower+state", None), ("dcn+state", 64)]
)
def test_each_row_is_predicted_before_its_own_and_every_later_label_is_learnt(
    name: str, refit_every: int | None
) -> None:
    start = warm_up_end(LOG, PROTOCOL.warm_up)
    ts = LOG.impressions.ts
    cut = int(np.searchsorted(ts, ts[start + 5 * PROTOCOL.batch + 3]))
    turned = LOG.labels.copy()
    turned[cut:] = 1 - turned[cut:]
    one, other = outcome(name, LOG.labels, refit_every), outcome(name, turned, refit_every)
    known = ts[one.rows] <= ts[cut]
    assert known.sum() > cut - start
    assert one.logits.keys() == {"frozen", "frozen weights", "every 32 events", "online"}
    for mode, logits in one.logits.items():
        np.testing.assert_array_equal(logits[known], other.logits[mode][known], err_msg=mode)
    assert not np.array_equal(one.logits["online"], other.logits["online"])
    # nothing that stands still has seen any label of the stream
    np.testing.assert_array_equal(one.logits["frozen"], other.logits["frozen"])


def test_a_state_is_not_given_where_none_is_kept() -> None:
    with pytest.raises(ConfigurationError, match=r"keeps no user state.*use dcn"):
        contender("dcn+state", in_time=False)


def results(path: Path) -> Results:
    return Results(path, "online")


def test_what_was_cut_off_while_it_was_written_is_measured_again_and_counts_once(
    tmp_path: Path,
) -> None:
    path = tmp_path / "r.jsonl"
    rows = [({"seed": 0, "mode": mode}, {"auc": 0.5}) for mode in ("a", "b", "c")]
    results(path).add(rows)
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[:2]) + whole[2][:20])
    again = results(path)
    assert not again.done({"seed": 0}, 3)
    assert len(again.rows({"seed": 0})) == 2
    again.add([(key, {"auc": 0.6}) for key, _ in rows])
    for one in (again, results(path)):
        assert one.done({"seed": 0}, 3)
        assert [r.figures["auc"] for r in one.rows({"seed": 0})] == [0.6] * 3
    assert results(path).rows({"seed": 1}) == []


def test_a_file_of_something_else_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"bench": "online"}\n')
    with pytest.raises(ConfigurationError, match="line 1: not a row of a bench"):
        results(path)
