"""Deltas: what they hold, under which weights, and what a server has who applies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.model_inputs import Columns
from features.samples import Shown
from inttower.publish.published import score
from inttower.publish.snapshot import ModelSnapshot
from tests.trainer.desk import CHAMPION, Desk, floats
from trainer import deltas as deltas_module
from trainer.deltas import _chunks, _cost

BOTH = pytest.mark.parametrize("desk", ["plus", "state", "two_tower"], indirect=True)


def pairs(desk: Desk, samples: Sequence[Shown]) -> tuple[Columns, set[str]]:
    """Columns of pairs of users and items as they are by now, and which stand behind user rows."""
    users = desk.inputs.statics("user", [s.user_id for s in samples])
    state = desk.learner.models.user_state
    behind = dict(state.user_inputs(users)) if state else {}
    items = dict(desk.current_columns([s.item_id for s in samples]))
    return {**desk.inputs.live(samples), **items, **behind}, set(behind)


@BOTH
def test_a_delta_carries_what_the_model_has_now_encoded_by_the_base(begun: Desk) -> None:
    start = begun.end()
    learnt = begun.learn(300)
    (delta,) = begun.deltas(start)
    assert (delta.channel, delta.base_version) == (CHAMPION, "000001")

    # a step changes the rows of items and histories, and an item's features as soon as it is shown
    stepped = learnt.stepped
    items_of_step = {i for s in stepped for i in (s.item_id, *s.features.user_liked)}
    assert items_of_step - {s.item_id for s in stepped}
    assert set(delta.item_ids) == items_of_step | {s.item_id for s in learnt.shown}
    # a label changes the user state at once
    told = [*learnt.acted, *learnt.taken] if begun.learner.models.user_state else []
    assert set(delta.user_ids) == {s.user_id for s in [*stepped, *told]}
    clock = begun.learner.counters.clock
    for times in (delta.user_ts, delta.item_ts):
        assert learnt.shown[0].at < min(times) <= max(times) <= clock

    users, items = len(delta.user_ids), len(delta.item_ids)
    user_rows, item_rows = floats(delta.user_rows, users), floats(delta.item_rows, items)
    np.testing.assert_array_equal(user_rows, begun.user_rows(delta.user_ids))
    np.testing.assert_array_equal(item_rows, begun.model.item_id_rows(delta.item_ids))

    columns, vectors = begun.current_columns(delta.item_ids), floats(delta.item_vectors, items)
    base = begun.served(CHAMPION, "000001").base
    np.testing.assert_array_equal(vectors, base.item_vectors(columns, item_rows))
    # the weights have moved on meanwhile, so that the test would see the difference
    online = begun.model.serving_encoder().item_vectors(columns, item_rows)
    assert np.abs(vectors - online).max() > 1e-3


@BOTH
def test_a_version_and_its_deltas_are_the_model_but_for_the_dense_drift(begun: Desk) -> None:
    """Rows are the model's own, of everybody; what differs is the dense weights alone."""
    version = begun.served(CHAMPION, "000001")
    start = begun.end()
    learnt = []
    for _ in range(4):  # several deltas, the later ones over the earlier
        learnt += begun.learn(100).shown
        begun.publisher.flush()
    got = begun.deltas(start)
    assert len(got) == 4
    users = dict(zip(version.user_ids, version.user_rows, strict=True))
    items = dict(zip(version.item_ids, version.item_rows, strict=True))
    vectors = dict(zip(version.item_ids, version.item_vectors, strict=True))
    for delta in got:
        n, m = len(delta.user_ids), len(delta.item_ids)
        users |= zip(delta.user_ids, floats(delta.user_rows, n), strict=True)
        items |= zip(delta.item_ids, floats(delta.item_rows, m), strict=True)
        vectors |= zip(delta.item_ids, floats(delta.item_vectors, m), strict=True)

    # 1. rows: of touched and untouched, equal to the last bit
    model = begun.model
    assert users.keys() == set(model.known_ids("user"))
    for held, rows in ((users, begun.user_rows), (items, model.item_id_rows)):
        np.testing.assert_array_equal(np.stack(list(held.values())), rows(list(held)))

    # 2. vectors: those of the model's rows under the base's dense weights
    now, behind = pairs(begun, learnt[-40:])
    known = list(users)
    hybrid = ModelSnapshot(
        base=version.base,
        user_ids=known,
        user_rows=begun.user_rows(known),
        item_ids=list(items),
        item_vectors=np.stack(list(vectors.values())),
        item_rows=model.item_id_rows(list(items)),
    )

    fields = [f.name for f in version.base.spec.of_side("user") if f.name not in behind]

    def served(
        user_rows: dict[str, Any], item_rows: dict[str, Any], item_vectors: dict[str, Any]
    ) -> np.ndarray[Any, np.dtype[np.float32]]:
        logits = []
        for at, sample in enumerate(learnt[-40:]):
            user = version.base.user_vector(
                {name: now[name][at : at + 1] for name in fields},
                user_rows.get(sample.user_id),
                lambda ids: np.stack([item_rows[i] for i in ids]),
            )
            logits.append(score(user, item_vectors[sample.item_id][None])[0])
        return np.array(logits, np.float32)

    fresh = served(users, items, vectors)
    np.testing.assert_allclose(fresh, hybrid.logits(now), rtol=1e-5, atol=1e-5)

    # 3. the network itself differs by the drift of its dense weights, and less than from before
    online = model.predict(model.encode(now, admit=False))
    stale = served(
        dict(zip(version.user_ids, version.user_rows, strict=True)),
        dict(zip(version.item_ids, version.item_rows, strict=True)),
        dict(zip(version.item_ids, version.item_vectors, strict=True)),
    )
    drift, before = np.abs(fresh - online).mean(), np.abs(stale - online).mean()
    assert 0 < drift < before


@pytest.mark.parametrize(
    ("count", "name"),
    [(4_000, "u{}"), (800, "\x01" * 200 + "{}"), (2_000, "語" * 80 + "{}")],
    ids=["short", "escaped", "wide"],
)
def test_a_big_delta_is_cut_so_that_the_broker_takes_it(begun: Desk, count: int, name: str) -> None:
    start = begun.end()
    some = dict.fromkeys(map(name.format, range(count)), 1)
    begun.learner.touched.users |= some
    begun.learner.touched.items |= some
    got = begun.deltas(start)
    assert len(got) > 1
    width = begun.user_rows(["u"]).shape[1]
    for side in ("user", "item"):
        ids = [id_ for delta in got for id_ in getattr(delta, f"{side}_ids")]
        assert ids == [name.format(n) for n in range(count)]
    for delta in got:
        assert len(delta.user_ts) == len(delta.user_ids)
        assert len(delta.user_rows) == 4 * len(delta.user_ids) * width


costs = st.lists(st.integers(1, deltas_module.MAX_BYTES - deltas_module._HEAD_BYTES), max_size=30)


@given(costs, costs)
def test_chunks_cover_both_lists_once_and_stay_under_the_limit(
    users: list[int], items: list[int]
) -> None:
    chunks = list(_chunks(users, items))
    assert [c for u, _ in chunks for c in users[u]] == users
    assert [c for _, i in chunks for c in items[i]] == items
    for u, i in chunks:
        assert 0 < sum(users[u]) + sum(items[i]) <= deltas_module.MAX_BYTES


@given(st.text(max_size=40), st.integers(0, 300))
def test_no_row_costs_more_than_is_reckoned(text: str, numbers: int) -> None:
    text = text.encode(errors="replace").decode()
    row = {"id": [text], "ts": [10**13], "row": bytes(4 * numbers)}
    assert len(msgspec.json.encode(row)) - len('{"id":[],"ts":[],"row":""}') <= _cost(text, numbers)
