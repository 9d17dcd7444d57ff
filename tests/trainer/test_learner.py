"""Predict, then learn: what a prediction may know, and that nothing else decides the bytes."""

from __future__ import annotations

import random
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from features.samples import Action, Shown
from inttower.core.batch import FloatArray
from settings.errors import ConfigurationError
from tests.trainer import synthetic
from tests.trainer.build import digest, in_order, learner, restored
from trainer.arrived import Arrived
from trainer.checkpoint import CheckpointFolder
from trainer.learning.model_set import MODELS
from trainer.learning.online_learner import OnlineLearner

END = 2 * synthetic.START_MS
REFITS = pytest.mark.parametrize("refit_samples", [None, 150])


def feed(learning: OnlineLearner, records: Sequence[Arrived], *, end: bool = False) -> None:
    for one in records:
        learning.add(one)
    if end:
        learning.advance(END)


def logits(of: OnlineLearner) -> FloatArray:
    return np.asarray(of.evaluation.state()["logits"], np.float32)


@pytest.fixture(scope="module")
def ordered() -> list[Arrived]:
    return in_order(synthetic.records(synthetic.samples(1200)))


def test_online_learning_beats_the_frozen_copy_and_the_counters() -> None:
    made = synthetic.samples(6500)
    learning = learner(warmup_until_ms=synthetic.at(made[2500][0]))
    feed(learning, in_order(synthetic.records(made)), end=True)
    found = learning.evaluation.over_window()
    auc = {name: found[name].auc or 0.0 for name in MODELS}
    assert auc["online"] > 0.7
    assert auc["online"] > auc["logistic_regression"] + 0.05
    assert auc["online"] > auc["frozen_weights"] > auc["frozen"] - 0.01
    assert {f.rows for f in found.values()} == {learning.evaluation.recorded}
    # all but those that wait for the next step
    assert learning.evaluation.recorded + learning.counters.warmup_samples > 6500 - 32


@REFITS
def test_no_prediction_depends_on_a_label_that_comes_later(
    ordered: list[Arrived], refit_samples: int | None
) -> None:
    """Actions from some moment on, other ones, change no prediction made before it."""
    rng = random.Random(1)
    one, other = (learner(preset="state", refit_samples=refit_samples) for _ in range(2))
    cut = next(r.message.at for r in ordered[1100:] if isinstance(r.message, Shown))
    feed(one, ordered[:1500], end=True)
    feed(
        other,
        [
            r
            for r in ordered[:1500]
            if r.message.at <= cut or isinstance(r.message, Shown) or rng.random() < 0.5
        ],
        end=True,
    )
    first, second = logits(one), logits(other)
    shown = [r.message.at for r in ordered[:1500] if isinstance(r.message, Shown)]
    # what was shown before the warm-up ended was predicted by nobody
    recorded = shown[len(shown) - len(first) :]
    same = sum(at <= cut for at in recorded)
    assert same > 150
    np.testing.assert_array_equal(first[:same], second[:same])
    assert not np.array_equal(first[:, 0], second[:, 0])
    # what is frozen knows no label of the stream at all
    still = MODELS.index("frozen")
    np.testing.assert_array_equal(first[:, still], second[:, still])


def test_equal_records_give_equal_bytes_however_time_is_told(ordered: list[Arrived]) -> None:
    one, other = learner(), learner()
    feed(one, ordered)
    for each in ordered:
        other.add(each)
        other.advance(each.message.at - 1)
        other.advance(each.message.at - 1)
    one.advance(ordered[-1].message.at - 1)
    assert digest(one.parts()) == digest(other.parts())


def test_another_seed_gives_other_bytes(ordered: list[Arrived]) -> None:
    one, other = learner(), learner(seed=1)
    feed(one, ordered[:900])
    feed(other, ordered[:900])
    assert one.warm
    assert digest(one.parts())["online"] != digest(other.parts())["online"]


@pytest.mark.parametrize("at", [700, 1401])
@REFITS
def test_a_restored_learner_goes_on_to_the_same_bytes(
    ordered: list[Arrived],
    at: int,
    refit_samples: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    # a wait of seconds, so that rows are open in each of their stages
    log = {"attribution_ms": 60_000, "wait_ms": 20_000}
    one, other = (learner(log, refit_samples=refit_samples) for _ in range(2))
    feed(one, ordered[:at])
    assert one.rows.unlearnt > 10
    assert one.rows.unclosed > one.rows.unlearnt
    assert one.queued
    folder = CheckpointFolder(tmp_path_factory.mktemp("checkpoints"), keep=2)
    folder.save(b"{}", {}, one.parts())
    loaded = folder.load({})
    folder.close()
    assert loaded is not None
    restored(one, other)
    assert digest(other.parts()) == digest(loaded.parts)
    feed(one, ordered[at:], end=True)
    feed(other, ordered[at:], end=True)
    assert digest(other.parts()) == digest(one.parts())
    state = one.models.user_state
    assert state is not None
    assert (state.fits > 1) is (refit_samples is not None)


def test_the_warm_up_ends_with_enough_of_both_labels(ordered: list[Arrived]) -> None:
    learning = learner(warmup_until_ms=None, warmup_labels=30)
    for each in ordered:
        learning.add(each)
        if learning.warm:
            break
    clicked = {r.message.request_id for r in ordered if isinstance(r.message, Action)}
    shown = [r.message for r in ordered if isinstance(r.message, Shown)]
    count = learning.counters.warmup_samples
    labels = [s.request_id in clicked for s in shown[:count]]
    assert min(sum(labels), count - sum(labels)) == 30
    # what was shown and whose wait has not passed is no part of it
    assert shown[count].at > shown[count - 1].at
    assert learning.rows.count > count


def test_a_warm_up_without_positives_ends_all_the_same(ordered: list[Arrived]) -> None:
    learning = learner(warmup_until_ms=None, warmup_most_samples=50)
    feed(learning, [r for r in ordered if isinstance(r.message, Shown)][:200])
    assert learning.warm
    assert 50 <= learning.counters.warmup_samples < 60
    assert np.isfinite(logits(learning)).all()


def test_the_warm_up_ends_at_its_time(ordered: list[Arrived]) -> None:
    shown = [r.message for r in ordered if isinstance(r.message, Shown)]
    until = shown[300].at + synthetic.WINDOW_MS
    before = sum(s.at + synthetic.WINDOW_MS < until for s in shown)
    by_record, by_watermark = learner(warmup_until_ms=until), learner(warmup_until_ms=until)
    feed(by_record, ordered, end=True)
    assert by_record.counters.warmup_samples == before
    early = [r for r in ordered if r.message.at < until]
    feed(by_watermark, early)
    by_watermark.advance(until - 1)
    assert by_watermark.counters.warmup_samples == 0
    by_watermark.advance(until)
    assert by_watermark.counters.warmup_samples == before
    feed(by_watermark, ordered[len(early) :], end=True)
    assert digest(by_watermark.parts()) == digest(by_record.parts())


def test_no_warm_up_at_all_works(ordered: list[Arrived]) -> None:
    learning = learner(warmup_until_ms=1)
    feed(learning, ordered[:300], end=True)
    assert learning.counters.warmup_samples == 0
    assert learning.evaluation.recorded > 100
    assert np.isfinite(logits(learning)).all()


def test_new_users_and_items_get_rows_when_first_shown(ordered: list[Arrived]) -> None:
    learning = learner()
    feed(learning, ordered[:800])
    message = ordered[800].message
    newcomer = msgspec.structs.replace(message, user_id="nobody knows", item_id="nor this")
    before = learning.id_counts()
    shown = newcomer if isinstance(newcomer, Shown) else None
    for each in ordered[800:]:
        if isinstance(each.message, Shown):
            shown = msgspec.structs.replace(
                each.message, user_id="nobody knows", item_id="nor this"
            )
            learning.add(each._replace(message=shown))
            break
    assert shown is not None
    learning.advance(END)
    after = learning.id_counts()
    assert after["user"] >= before["user"] + 1
    assert after["item"] >= before["item"] + 1
    assert np.isfinite(logits(learning)).all()


def test_a_warm_up_with_more_ids_than_allowed_says_so() -> None:
    learning = learner(preset="plus", max_ids=5, warmup_until_ms=END)
    feed(learning, in_order(synthetic.records(synthetic.samples(8_300))))
    with pytest.raises(ConfigurationError, match=r"more ids than trainer\.max_ids \(5\)"):
        learning.advance(END)


def test_rows_whose_ids_have_expired_since_are_learnt_as_unknown_ones() -> None:
    """More users than the table holds, open for longer than their rows are theirs."""
    made = synthetic.samples(1_500, users=300)
    learning = learner(
        {"attribution_ms": 600_000, "wait_ms": 300_000},
        preset="plus",
        max_ids=100,
        warmup_until_ms=1,
    )
    feed(learning, in_order(synthetic.records(made)), end=True)
    assert learning.counters.batches > 30
    assert np.isfinite(logits(learning)).all()


def test_the_user_state_helps() -> None:
    # 20 samples of each user: too few for rows of users, enough for what is believed of them
    made = synthetic.samples(4000, users=200)
    until = synthetic.at(made[2000][0])
    plain, beside = (learner(preset=p, warmup_until_ms=until) for p in ("plus", "state"))
    for each in in_order(synthetic.records(made)):
        plain.add(each)
        beside.add(each)
    aucs = [one.evaluation.over_all()["online"].auc for one in (plain, beside)]
    assert aucs[1] is not None
    assert aucs[0] is not None
    assert aucs[1] > aucs[0] + 0.02
    # the rival on the live counters is the same
    assert logits(plain)[:, 3].tolist() == logits(beside)[:, 3].tolist()


def test_a_refit_of_what_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"refit_samples.*'plus' does not have.*state"):
        learner(preset="plus", refit_samples=100)
