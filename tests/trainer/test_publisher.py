"""What leaves the trainer: versions in the store, and when none does."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from prometheus_client import Counter

from inttower.models.inttower import IntTower
from settings.errors import BrokerError
from settings.settings import Settings
from streaming.events import Delta, Entity, VersionAnnounced
from tests.trainer.build import WARMUP
from tests.trainer.desk import CHAMPION, FROZEN, Desk, floats
from trainer import publisher as publisher_module


def total(counter: Counter, channel: str) -> float:
    return float(counter.labels(channel)._value.get())


def test_both_channels_get_a_version_when_the_warm_up_ends(begun: Desk) -> None:
    assert begun.store.channels() == [CHAMPION, FROZEN]
    for channel in (CHAMPION, FROZEN):
        served = begun.served(channel, "000001")
        manifest = served.manifest
        assert (manifest.channel, manifest.version, manifest.parent) == (channel, "000001", None)
        assert manifest.offsets == {"0": begun.intake.offsets[0]}
        learnt = begun.learner.counters.learnt if channel == CHAMPION else WARMUP
        assert manifest.metrics == {"run": "run 1", "learnt": learnt, "fits": 1}
        assert list(served.user_ids) == begun.model.known_ids("user")
        # every item of the catalogue has a vector, two were never shown
        assert set(served.item_ids) == {f"i{i}" for i in range(62)}
        np.testing.assert_array_equal(served.user_rows, begun.user_rows(served.user_ids))
        np.testing.assert_array_equal(served.item_rows, begun.model.item_id_rows(served.item_ids))
    told = begun.updates()
    assert [type(one) for one in told] == [VersionAnnounced, VersionAnnounced]
    assert [(one.channel, getattr(one, "version", "")) for one in told] == [
        (FROZEN, "000001"),
        (CHAMPION, "000001"),
    ]


def test_a_later_version_names_its_parent_and_what_it_has_learnt(begun: Desk) -> None:
    begun.learn(100)
    begun.publisher._versions.due_in(0)
    begun.publisher.tick()
    manifest = begun.served(CHAMPION, "000002").manifest
    assert manifest.parent == "000001"
    assert manifest.offsets == {"0": begun.intake.offsets[0]}
    assert manifest.metrics["learnt"] == begun.learner.counters.learnt > WARMUP
    # deltas before this offset are in the version; from it on they belong on top
    told = begun.updates()
    before, after = told[: manifest.updates_offset], told[manifest.updates_offset :]
    assert {one.base_version for one in before if isinstance(one, Delta)} == {"000001"}
    assert [type(one) for one in after] == [VersionAnnounced]
    begun.learn(100)
    (delta,) = begun.deltas(manifest.updates_offset)
    assert delta.base_version == "000002"
    items = delta.item_ids
    np.testing.assert_array_equal(
        floats(delta.item_vectors, len(items)),
        begun.served(CHAMPION, "000002").base.item_vectors(
            begun.current_columns(items), begun.model.item_id_rows(items)
        ),
    )
    # what was frozen is published once
    assert begun.store.versions(FROZEN) == ["000001"]


def test_a_version_tells_its_figures_once_they_are_certain(
    begun: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_JUDGED_ROWS", 100)
    begun.learn(300)
    begun.publisher._publish_online()
    window = begun.served(CHAMPION, "000002").manifest.metrics["window"]
    found = begun.learner.evaluation.over_window()
    assert window == {name: figures.to_json() for name, figures in found.items()}


def test_behind_a_refit_comes_a_version_and_no_delta_before_it(cluster: Settings) -> None:
    desk = Desk(cluster, preset="state", refit_samples=100)
    state = desk.learner.models.user_state
    assert state is not None
    desk.warm_up()
    desk.publisher.begin()
    desk.learn(90)
    before = desk.updates()
    assert state.fits == 1
    desk.learn(60)
    assert state.fits == 2
    # every vector of the version that serves is of other factors by now
    assert desk.updates() == before
    desk.publisher.tick()
    served = desk.served(CHAMPION, "000002")
    columns = desk.current_columns(served.item_ids)
    rows = desk.model.item_id_rows(served.item_ids)
    np.testing.assert_array_equal(served.item_vectors, served.base.item_vectors(columns, rows))
    np.testing.assert_array_equal(served.user_rows, desk.user_rows(served.user_ids))
    desk.publisher.tick()
    assert desk.store.versions(CHAMPION) == ["000001", "000002"]
    desk.learn(30)
    (*_, announced, delta) = desk.updates()
    assert isinstance(announced, VersionAnnounced)
    assert isinstance(delta, Delta)
    assert delta.base_version == announced.version == "000002"
    # a new process publishes once, whatever was refitted before it
    desk.start("run 1").begin()
    desk.publisher.tick()
    assert desk.store.versions(CHAMPION) == ["000001", "000002", "000003"]
    desk.close()


def test_after_a_restart_the_frozen_channel_is_left_as_it_is(begun: Desk) -> None:
    begun.start("run 1").begin()
    assert begun.store.versions(FROZEN) == ["000001"]
    assert begun.publisher.published[FROZEN].version == "000001"
    # the online channel gets one at each start: its deltas fit no older base
    assert begun.store.versions(CHAMPION) == ["000001", "000002"]
    begun.start("run 2").begin()
    assert begun.store.versions(FROZEN) == ["000001", "000002"]


def bases(desk: Desk, start: int) -> set[str]:
    """Which versions the deltas from an offset on are for."""
    return {one.base_version for one in desk.deltas(start)}


def test_deltas_keep_flowing_to_the_version_that_a_rollback_holds(begun: Desk) -> None:
    begun.publisher._publish_online()
    begun.store.rollback(CHAMPION, to="000001")
    start = begun.end()
    begun.publisher._publish_online()
    begun.learn(100)
    assert begun.store.current(CHAMPION) == "000001"
    assert begun.store.versions(CHAMPION) == ["000001", "000002", "000003"]
    told = begun.updates(start)
    assert {type(one) for one in told} == {Delta}  # the new version is not announced
    assert bases(begun, start) == {"000001"}
    # vectors of the weights that serve, of the rows as they are now
    [delta] = begun.deltas(start)
    base = begun.served(CHAMPION, "000001").base
    rows = begun.model.item_id_rows(delta.item_ids)
    vectors = base.item_vectors(begun.current_columns(delta.item_ids), rows)
    np.testing.assert_array_equal(floats(delta.item_vectors, len(rows)), vectors)
    # when the rollback ends, the newest version gets what was touched since it was made
    assert begun.store.resume(CHAMPION) == "000003"
    resumed = begun.end()
    begun.publisher._turn_to_served()
    assert bases(begun, resumed) == {"000003"}
    [again] = begun.deltas(resumed)
    assert (set(again.user_ids), set(again.item_ids)) == (set(delta.user_ids), set(delta.item_ids))


def test_deltas_return_to_the_version_before_one_that_is_refused(begun: Desk) -> None:
    begun.publisher._publish_online()
    begun.learn(100)
    [lost] = begun.deltas()[-1:]
    start = begun.end()
    assert lost.base_version == "000002"
    begun.store.refuse(CHAMPION, "000002", "quality", "its AUC")
    begun.publisher._turn_to_served()
    [again] = begun.deltas(start)
    assert again.base_version == "000001"
    assert set(again.item_ids) >= set(lost.item_ids)


def test_a_version_of_another_run_gets_no_deltas(begun: Desk) -> None:
    begun.start("run 2").begin()
    begun.store.rollback(CHAMPION, to="000001")
    start = begun.end()
    begun.publisher._turn_to_served()
    begun.learn(100)
    assert begun.deltas(start) == []
    begun.store.resume(CHAMPION)
    begun.publisher._turn_to_served()
    assert bases(begun, start) == {"000002"}


def test_a_changed_attribute_is_sent_without_any_event(begun: Desk) -> None:
    catalogue, item = begun.inputs._catalogue, begun.model.known_ids("item")[0]
    changed = msgspec.json.encode(Entity(id=item, attributes={"genres": ["Western"]}))
    catalogue.apply("item", item.encode(), changed)
    start = begun.end()
    begun.publisher._touch_changed()
    [delta] = begun.deltas(start)
    assert (delta.user_ids, delta.item_ids) == ([], [item])
    served = begun.served(CHAMPION, delta.base_version)
    before = served.item_vectors[served.item_ids.index(item)]
    assert not np.array_equal(floats(delta.item_vectors, 1)[0], before)


# ---------------------------------------------------------------------- when it cannot


def test_a_store_that_fails_is_tried_again_and_stops_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "_RETRY_S", 0.0)
    in_the_way = Path(desk.settings.store_url)
    in_the_way.write_text("not a folder")
    desk.warm_up()
    desk.publisher.begin()
    desk.learn(200)
    desk.publisher.tick()
    assert desk.updates() == []
    failures = desk.metrics.version_failures
    assert (total(failures, CHAMPION), total(failures, FROZEN)) == (2, 2)
    in_the_way.unlink()
    desk.publisher.tick()
    assert desk.served(CHAMPION, "000001").manifest.metrics["learnt"] > WARMUP
    assert desk.served(FROZEN, "000001").manifest.metrics == {
        "run": "run 1",
        "learnt": WARMUP,
        "fits": 1,
    }
    # what was touched meanwhile is in the version, what comes now is on top of it
    assert desk.deltas() == []
    learnt = desk.learn(100)
    (delta,) = desk.deltas()
    changed = [*learnt.acted, *learnt.taken, *learnt.stepped]
    assert set(delta.user_ids) == {s.user_id for s in changed}


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_weights_that_are_no_numbers_are_never_published(
    begun: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    model = begun.model
    assert isinstance(model, IntTower)
    begun.learn(100)
    begun.publisher.flush()
    start = begun.end()
    with torch.no_grad():
        next(model.network.parameters()).view(-1)[0] = torch.nan
    begun.publisher._publish_online()
    assert begun.store.versions(CHAMPION) == ["000001"]
    assert "not a finite float32 number" in caplog.text
    assert total(begun.metrics.version_failures, CHAMPION) == 1
    # by a step the rows catch it, too: they must not travel as deltas
    begun.learn(100)
    assert begun.updates(start) == []
    assert "no deltas of champion until a version passes its checks" in caplog.text
    begun.publisher.tick()
    assert total(begun.metrics.version_failures, CHAMPION) == 2


def test_a_broker_that_does_not_answer_delays_a_version(
    begun: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_settings: Settings) -> None:
        raise BrokerError("nobody answers")

    with monkeypatch.context() as patch:
        patch.setattr(publisher_module, "admin", away)
        begun.publisher._publish_online()
    assert total(begun.metrics.version_failures, CHAMPION) == 1
    assert begun.store.versions(CHAMPION) == ["000001"]
    begun.publisher._publish_online()
    assert begun.store.versions(CHAMPION) == ["000001", "000002"]
