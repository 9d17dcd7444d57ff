"""What is ranked is logged: to whom, by which variant, version and delta, how likely, how ranked.

What is shown is logged too, if the request says that all of it is, or when it is posted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.experiments.assignment import Experiment
from streaming.kafka.topics import IMPRESSIONS, RANKINGS
from tests.serving.conftest import NOW, USER_IDS, user_raw

if TYPE_CHECKING:
    from inttower.models.inttower import IntTower
    from tests.serving.conftest import World

EXPERIMENT = """
name = "moving-against-frozen"
[[variants]]
name = "moving"
channel = "champion"
share = 0.7
[[variants]]
name = "still"
channel = "frozen"
share = 0.3
"""


@pytest.fixture
def experiment(make_world: Callable[..., World], model: IntTower, tmp_path: Path) -> World:
    """A server in an experiment, its two channels at different versions and deltas."""
    path = tmp_path / "experiment.toml"
    path.write_text(EXPERIMENT)
    world = make_world(experiment=str(path), features_logged_share=1.0)
    world.publish(model, "000001", channel="frozen")
    world.publish(world.models.train(seed=2), "000005")
    world.start()
    world.until(lambda: world.http.get("/readyz").is_success)
    number = world.send_delta("000005")
    world.until(lambda: world.serving() == ("000005", number))
    return world


def logged(world: World, count: int) -> list[dict[str, Any]]:
    """The impressions in Kafka, once so many are there."""
    world.until(lambda: world.metric("headrace_outbox_pending") == 0)
    found = world.read(IMPRESSIONS)
    assert len(found) == count
    return found


def test_every_exposure_is_logged_with_what_made_it(experiment: World) -> None:
    world, shown = experiment, {}
    for user in USER_IDS:
        context = {"page": f"home of {user}"}
        shown[user] = world.rank(user, k=5, context=context, log="shown")
        # not logged, and not another variant
        again = world.rank(user, k=5, request_id="again")
        assert {**again, "request_id": ""} == {**shown[user], "request_id": ""}
    found = logged(world, 5 * len(USER_IDS))
    serving = {"champion": world.serving(), "frozen": world.serving("frozen")}
    shares = {"moving": ("champion", 0.7), "still": ("frozen", 0.3)}
    draw = Experiment.read(Path(world.settings.serving.experiment), ("champion", "frozen"))
    for user, answer in shown.items():
        channel, share = shares[answer["variant"]]
        assert answer["variant"] == draw.assign(user, NOW).variant
        assert (answer["model"], (answer["version"], answer["delta"])) == (
            channel,
            serving[channel],
        )
        assert [i for i in found if i["user_id"] == user] == [
            {
                "request_id": answer["request_id"],
                "user_id": user,
                "item_id": item["item_id"],
                "ts": NOW,
                "position": position,
                "score": item["score"],
                "experiment": "moving-against-frozen",
                "variant": answer["variant"],
                "model": answer["model"],
                "version": answer["version"],
                "propensity": share,
                "context": {"page": f"home of {user}"},
            }
            for position, item in enumerate(answer["items"])
        ]
    assert {answer["variant"] for answer in shown.values()} == set(shares)
    # the rankings: with delta and features, and those that were not shown too
    rankings = world.read(RANKINGS)
    assert len(rankings) == 2 * len(USER_IDS)
    by_request = {ranking["request_id"]: ranking for ranking in rankings}
    for user, answer in shown.items():
        ranking = by_request[answer["request_id"]]
        raw = user_raw(USER_IDS.index(user))
        features = list(ranking.pop("features").values())
        assert features == [list(v) if isinstance(v, tuple) else v for v in raw]
        delta = {} if answer["delta"] == -1 else {"delta": answer["delta"]}
        assert ranking == {
            **{name: answer[name] for name in ("request_id", "user_id", "ts", "model", "version")},
            **{name: answer[name] for name in ("experiment", "variant", "items")},
            **delta,
            "propensity": shares[answer["variant"]][1],
            "context": {"page": f"home of {user}"},
        }


def test_an_impression_gets_what_its_ranking_knows(experiment: World) -> None:
    """The application reports what was shown, by request and item alone."""
    world, answer = experiment, experiment.rank("u3", k=5, context={"page": "home"})
    kept = [answer["items"][at] for at in (3, 0)]
    posted = [
        {"request_id": answer["request_id"], "item_id": item["item_id"], "position": position}
        for position, item in enumerate(kept)
    ]
    posted.append({"request_id": answer["request_id"], "item_id": "an advertisement", "ts": NOW})
    posted.append({"request_id": "elsewhere", "user_id": "u3", "item_id": "i1", "ts": NOW})
    before = time.time_ns() // 10**6
    assert world.http.post("/v1/events", json={"impressions": posted}).status_code == 202
    found = logged(world, 4)  # ranked is not shown: none but the posted ones
    ranked = {name: answer[name] for name in ("user_id", "experiment", "variant", "model")}
    ranked |= {"version": answer["version"], "context": {"page": "home"}}
    ranked["propensity"] = 0.7 if answer["variant"] == "moving" else 0.3
    for impression, item in zip(found, kept, strict=False):
        assert before <= impression.pop("ts") <= time.time_ns() // 10**6
        assert impression.pop("score") == item["score"]
        assert impression.pop("position") == kept.index(item)
        ids = {"request_id": answer["request_id"], "item_id": item["item_id"]}
        assert impression == {**ranked, **ids}
    assert found[2] == {**ranked, **posted[2]}  # of this ranking, with no score in it
    assert found[3] == posted[3]


def test_what_the_application_says_itself_is_kept(experiment: World) -> None:
    answer = experiment.rank("u3", k=1)
    own = {"request_id": answer["request_id"], "item_id": answer["items"][0]["item_id"]}
    own |= {"user_id": "u3", "ts": NOW, "score": 0.125, "version": "mine", "context": {"a": 1}}
    assert experiment.http.post("/v1/events", json=own).status_code == 202
    [found] = logged(experiment, 1)
    assert {name: found[name] for name in own} == own
    assert found["variant"] == answer["variant"]


def test_asking_for_a_channel_is_no_part_of_the_experiment(experiment: World) -> None:
    for channel, version in (("champion", "000005"), ("frozen", "000001")):
        answer = experiment.rank("u1", k=1, channel=channel, log="shown")
        assert (answer["model"], answer["variant"]) == (channel, None)
        assert answer["version"] == version
    found = logged(experiment, 2)
    assert all("variant" not in i and "propensity" not in i for i in found)
    assert {i["version"] for i in found} == {"000005", "000001"}


def test_before_the_start_everyone_gets_the_control(
    make_world: Callable[..., World], model: IntTower, tmp_path: Path
) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text("start = 2100-01-01T00:00:00Z\n" + EXPERIMENT)
    world = make_world(experiment=str(path))
    for channel in ("champion", "frozen"):
        world.publish(model, "000001", channel=channel)
    world.start()
    world.until(lambda: world.http.get("/readyz").is_success)
    answers = [world.rank(user, k=1, log="shown") for user in USER_IDS]
    assert {(a["model"], a["variant"]) for a in answers} == {("champion", None)}
    assert not any("propensity" in i for i in logged(world, len(USER_IDS)))
