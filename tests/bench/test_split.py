"""No feature of the random split may hold a label of its test part, nor a row its own."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.split import ProtocolName, Split, SplitData
from features.log_arrays import LogArrays, load
from features.logs.movielens_features import MOVIELENS
from inttower.core.contract import Columns
from tests.streaming.made_up import made_up_log

LOG = load(made_up_log(1_500, users=30), MOVIELENS)
SPLIT = Split.random(len(LOG), seed=3)


def _columns(labels: NDArray[np.uint8], protocol: ProtocolName) -> tuple[Columns, Columns]:
    return SplitData(MOVIELENS, LOG, protocol).columns(SPLIT, labels)


def _same(one: Columns, other: Columns) -> bool:
    assert one.keys() == other.keys()
    return all(
        np.array_equal(np.asarray(one[k], object), np.asarray(other[k], object)) for k in one
    )


def _permuted(log: LogArrays, rows: NDArray[np.int64], seed: int) -> NDArray[np.uint8]:
    labels = log.labels.copy()
    labels[rows] = np.random.default_rng(seed).permutation(labels[rows])
    assert not np.array_equal(labels, log.labels)
    return labels


def test_a_split_has_each_row_once() -> None:
    rows = np.concatenate((SPLIT.train, SPLIT.test))
    assert sorted(rows.tolist()) == list(range(len(LOG)))
    assert len(SPLIT.test) == -(-len(LOG) // 5)


@pytest.mark.parametrize("seed", range(3))
def test_permuted_labels_of_the_test_part_change_no_feature(seed: int) -> None:
    honest = _columns(LOG.labels, "leak-free")
    permuted = _columns(_permuted(LOG, SPLIT.test, seed), "leak-free")
    assert all(map(_same, honest, permuted))
    # the check sees a leak where there is one: the published protocol's
    leaky = _columns(LOG.labels, "leaky")
    assert not _same(leaky[1], _columns(_permuted(LOG, SPLIT.test, seed), "leaky")[1])


def test_a_training_row_does_not_see_its_own_fold() -> None:
    honest, _ = _columns(LOG.labels, "leak-free")
    mine = SPLIT.fold == 4
    changed, test = _columns(_permuted(LOG, SPLIT.train[mine], 0), "leak-free")
    numbers = [k for k, v in honest.items() if isinstance(v, np.ndarray)]
    assert numbers
    for name in numbers:
        np.testing.assert_array_equal(
            np.asarray(honest[name])[mine], np.asarray(changed[name])[mine]
        )
    # all others do
    assert not _same(_columns(LOG.labels, "leak-free")[1], test)
