"""Predict, then learn: what a prediction may know, and that nothing else decides the bytes."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from inttower.core.batch import FloatArray
from settings.errors import ConfigurationError
from tests.trainer import synthetic
from tests.trainer.build import SMALL, arrived, digest, learner
from trainer.arrived import Arrived
from trainer.checkpoint import CheckpointFolder
from trainer.online_learner import MODELS, OnlineLearner


def with_label(one: Arrived, label: int) -> Arrived:
    return one._replace(sample=msgspec.structs.replace(one.sample, label=label))


def logits(of: OnlineLearner) -> FloatArray:
    return np.asarray(of.evaluation.state()["logits"], np.float32)


REFITS = pytest.mark.parametrize("refit_samples", [None, 150])


@pytest.fixture(scope="module")
def ordered() -> list[Arrived]:
    return arrived(synthetic.samples(1200))


def test_online_learning_beats_the_frozen_copy_and_the_counters() -> None:
    learning = learner(warmup_samples=2500, batch_span_ms=None)
    for one in arrived(synthetic.samples(6500)):
        learning.add(one)
    found = learning.evaluation.over_window()
    auc = {name: found[name].auc or 0.0 for name in MODELS}
    assert auc["online"] > 0.7
    assert auc["online"] > auc["logistic_regression"] + 0.05
    assert auc["online"] > auc["frozen_weights"] > auc["frozen"] - 0.01
    assert {f.rows for f in found.values()} == {learning.evaluation.recorded}


def test_no_prediction_depends_on_its_own_or_a_later_label(ordered: list[Arrived]) -> None:
    rng = random.Random(1)
    cut = 1000
    one, other = learner(), learner()
    for place, each in enumerate(ordered):
        one.add(each)
        label = each.sample.label if place < cut else rng.randrange(2)
        other.add(with_label(each, label))
    first, second = logits(one), logits(other)
    # the batch that holds the cut was predicted before any of its labels was learnt
    same = cut - SMALL["warmup_samples"]
    np.testing.assert_array_equal(first[:same], second[:same])
    assert not np.array_equal(first[:, 0], second[:, 0])
    # what is frozen knows no label of the stream at all
    still = MODELS.index("frozen")
    np.testing.assert_array_equal(first[:, still], second[:, still])


def test_equal_samples_give_equal_bytes(ordered: list[Arrived]) -> None:
    one, other = learner(), learner()
    for each in ordered:
        one.add(each)
    for each in ordered:
        other.add(each)
        other.advance(each.closed_ts - 1)
    assert digest(one.parts()) == digest(other.parts())


def test_another_seed_gives_other_bytes(ordered: list[Arrived]) -> None:
    one, other = learner(), learner(seed=1)
    for each in ordered[:600]:
        one.add(each)
        other.add(each)
    assert digest(one.parts())["online"] != digest(other.parts())["online"]


@pytest.mark.parametrize("at", [433, 1001])
def test_a_restored_learner_goes_on_to_the_same_bytes(
    ordered: list[Arrived], at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = learner()
    for each in ordered[:at]:
        one.add(each)
    folder = CheckpointFolder(tmp_path_factory.mktemp("checkpoints"), keep=2)
    folder.save(b"{}", {}, one.parts())
    loaded = folder.load({})
    folder.close()
    assert loaded is not None
    other = learner()
    other.restore(loaded.parts, one.open)
    assert digest(other.parts()) == digest(one.parts())
    for each in ordered[at:]:
        one.add(each)
        other.add(each)
    assert digest(other.parts()) == digest(one.parts())
    assert one.counters.learnt > at


def test_the_warm_up_ends_at_its_count(ordered: list[Arrived]) -> None:
    learning = learner(warmup_samples=10)
    for each in ordered[:10]:
        learning.add(each)
    assert learning.waiting == 10
    learning.advance(0)
    assert learning.warm
    assert learning.counters.warmup_samples == 10


def test_the_warm_up_ends_at_its_time(ordered: list[Arrived]) -> None:
    until = ordered[300].closed_ts
    before = sum(each.closed_ts < until for each in ordered)
    by_sample = learner(warmup_until_ms=until)
    for each in ordered:
        by_sample.add(each)
    assert by_sample.counters.warmup_samples == before
    by_frontier = learner(warmup_until_ms=until)
    for each in ordered[:before]:
        by_frontier.add(each)
    by_frontier.advance(until - 2)
    assert by_frontier.counters.warmup_samples == 0
    by_frontier.advance(until - 1)
    assert by_frontier.warm
    for each in ordered[before:]:
        by_frontier.add(each)
    assert digest(by_frontier.parts())["online"] == digest(by_sample.parts())["online"]


def test_no_warm_up_at_all_works(ordered: list[Arrived]) -> None:
    learning = learner(warmup_samples=0)
    for each in ordered[:200]:
        learning.add(each)
    assert learning.counters.warmup_samples == 0
    assert np.isfinite(logits(learning)).all()


def test_new_users_and_items_get_rows_when_first_seen(ordered: list[Arrived]) -> None:
    learning = learner()
    for each in ordered[:500]:
        learning.add(each)
    newcomer = msgspec.structs.replace(
        ordered[500].sample, user_id="nobody knows", item_id="nor this"
    )
    before = learning.id_counts()
    learning.add(ordered[500]._replace(sample=newcomer))
    learning.advance(2 * synthetic.START_MS)
    after = learning.id_counts()
    assert after["user"] >= before["user"] + 1
    assert after["item"] >= before["item"] + 1
    assert np.isfinite(logits(learning)).all()


def test_a_warm_up_with_more_ids_than_allowed_says_so(ordered: list[Arrived]) -> None:
    learning = learner(preset="plus", max_ids=5, warmup_samples=20_000)
    many = arrived(synthetic.samples(8_200))
    for each in many:
        learning.add(each)
    learning._settings = learning._settings.model_copy(update={"warmup_samples": 8_200})
    with pytest.raises(ConfigurationError, match=r"more ids than trainer\.max_ids \(5\)"):
        learning.advance(0)


@REFITS
def test_a_user_state_is_taught_every_sample_once_saved_and_frozen(
    ordered: list[Arrived], refit_samples: int | None
) -> None:
    learning = learner(preset="state", refit_samples=refit_samples)
    for each in ordered[:1000]:
        learning.add(each)
    state, frozen = learning.models.user_state, learning.models.frozen_user_state
    assert state is not None
    assert frozen is not None
    assert state.frontier == learning.counters.last_closed_ts
    assert frozen.frontier == ordered[SMALL["warmup_samples"] - 1].closed_ts
    parts = learning.parts()
    again = learner(preset="state", refit_samples=refit_samples)
    again.restore(parts, learning.open)
    assert digest(again.parts()) == digest(parts)
    for each in ordered[1000:]:
        learning.add(each)
        again.add(each)
    assert digest(again.parts()) == digest(learning.parts())
    assert digest(learning.parts())["user_state"] != digest(parts)["user_state"]
    assert (state.fits > 3) is (refit_samples is not None)
    assert frozen.fits == 1


def test_the_user_state_helps() -> None:
    # 20 samples of each user: too few for rows of users, enough for what is believed of them
    plain, beside = (learner(preset=preset, warmup_samples=2000) for preset in ("plus", "state"))
    for each in arrived(synthetic.samples(4000, users=200)):
        plain.add(each)
        beside.add(each)
    aucs = [one.evaluation.over_all()["online"].auc for one in (plain, beside)]
    assert aucs[1] is not None
    assert aucs[0] is not None
    assert aucs[1] > aucs[0] + 0.02
    # the rival on the live counters is the same
    assert logits(plain)[:, 3].tolist() == logits(beside)[:, 3].tolist()


@REFITS
def test_a_state_knows_no_label_that_closes_later(
    ordered: list[Arrived], refit_samples: int | None
) -> None:
    """Labels from some moment on, turned round, change no prediction made before it."""
    one, other = (learner(preset="state", refit_samples=refit_samples) for _ in range(2))
    cut = 700
    for place, each in enumerate(ordered[:900]):
        one.add(each)
        turned = each
        if place >= cut:
            turned = each._replace(
                sample=msgspec.structs.replace(each.sample, label=1 - each.sample.label)
            )
        other.add(turned)
    until = min(sample.sample.ts for sample in ordered[cut:900])
    early = sum(each.sample.ts <= until for each in ordered[SMALL["warmup_samples"] : cut])
    assert early > 50
    known = logits(one)[: early // 32 * 32], logits(other)[: early // 32 * 32]
    np.testing.assert_array_equal(*known)


def test_a_refit_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"refit_samples.*'plus' does not have.*state"):
        learner(preset="plus", refit_samples=100)
