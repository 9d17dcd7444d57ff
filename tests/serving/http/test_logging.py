"""What is shown is logged: to whom, by which variant, version and delta, how likely, how ranked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.experiments.assignment import Experiment
from streaming.kafka.topics import IMPRESSIONS
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
        shown[user] = world.rank(user, k=5, context=context, log=True)
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
        assert (answer["channel"], (answer["version"], answer["delta"])) == (
            channel,
            serving[channel],
        )
        impressions = [i for i in found if i["user_id"] == user]
        contexts = [i.pop("context") for i in impressions]
        assert impressions == [
            {
                "request_id": answer["request_id"],
                "user_id": user,
                "item_id": item["item_id"],
                "ts": NOW,
                "position": position,
                "score": item["score"],
                "experiment": "moving-against-frozen",
                "variant": answer["variant"],
                "model": answer["channel"],
                "version": answer["version"],
                "propensity": share,
            }
            for position, item in enumerate(answer["items"])
        ]
        features = {context["page"]: context["features"] for context in contexts}
        [(page, values)] = features.items()
        assert page == f"home of {user}"
        raw = user_raw(USER_IDS.index(user))
        assert list(values.values()) == [list(v) if isinstance(v, tuple) else v for v in raw]
    assert {answer["variant"] for answer in shown.values()} == set(shares)


def test_asking_for_a_channel_is_no_part_of_the_experiment(experiment: World) -> None:
    for channel, version in (("champion", "000005"), ("frozen", "000001")):
        answer = experiment.rank("u1", k=1, channel=channel, log=True)
        assert (answer["channel"], answer["variant"]) == (channel, None)
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
    answers = [world.rank(user, k=1, log=True) for user in USER_IDS]
    assert {(a["channel"], a["variant"]) for a in answers} == {("champion", None)}
    assert not any("propensity" in i for i in logged(world, len(USER_IDS)))
