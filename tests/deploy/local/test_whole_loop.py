"""All parts together over one made-up log: sums add up, served as published, the same twice."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.special import expit

from deploy.local import parts
from deploy.local.http_client import Client
from deploy.local.launcher import Launcher
from deploy.local.start import broker_and_topics
from features.catalogue import Catalogue
from features.logs.movielens_features import MOVIELENS
from features.model_inputs import RawRows, never_seen, user_columns
from inttower.publish.bundle import LoadedVersion, read_bundle
from inttower.publish.published import score
from inttower.publish.store import ModelStore
from settings.settings import Settings
from streaming.events import Delta, Entity, Update, encode
from streaming.kafka import topics
from streaming.kafka.ledger import count_events
from streaming.kafka.span import read_span, span
from streaming.kafka.sums import Sums
from streaming.kafka.time_marks import Marker
from streaming.kafka.writer import Writer
from tests.streaming.expected_job import expected_of
from tests.streaming.live_traffic import HOUR, Sent, arrived, live_settings, send, traffic
from tests.trainer.processes import learnt_bytes
from trainer.trainer_report import TrainerReport, read_report, report_path

SENT = traffic(shown=900, seed=7)
HALF = len(SENT) // 2
ITEMS = [f"i{n}" for n in range(20)]
NOW = 1_700_100_000_000


def loop_settings(cluster: Settings, name: str) -> Settings:
    """Topics and a state folder of its own; steps, checkpoints and versions come quickly."""
    return live_settings(cluster).with_changes(
        state=cluster.state / name,
        kafka={"embedded": False, "topic_prefix": f"{cluster.kafka.topic_prefix}{name}."},
        flink={"heap_mb": 512, "jvm_options": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"},
        trainer={
            "warmup_labels": 40,
            "batch_samples": 32,
            "checkpoint_every_s": 0.5,
            "version_every_s": 1.0,
        },
    )


class Running:
    """The parts of one run, kept alive by the launcher as ``headrace up`` does."""

    def __init__(self, settings: Settings, launcher: Launcher, said: list[str]) -> None:
        self.settings = settings
        self.launcher = launcher
        self._said = said
        self._last_mark = 0

    def send(self, sent: list[Sent], *, close: bool = False) -> None:
        send(self.settings, sent)
        over = sent[-1][0] + self.settings.flink.deadline_ms + HOUR
        self._last_mark = over if close else sent[-1][0]

    def until(self, true: Callable[[], object], what: str, seconds: float = 900) -> None:
        """Wait, and say again how late it is: a mark tells how far the job was when it passed."""
        deadline = time.monotonic() + seconds
        while not true():
            self.launcher.watch()
            with Writer(self.settings, bulk=False) as writer:
                Marker(self.settings, writer).mark(self._last_mark)
            assert time.monotonic() < deadline, (
                f"not in time: {what}; {self.report.samples}; {self._said[-9:]}"
            )
            time.sleep(1.0)

    def kill(self, name: str) -> None:
        """As kill -9 of the part and all that it has started; the launcher starts it again."""
        os.killpg(self.launcher.pids()[name], signal.SIGKILL)

    @property
    def report(self) -> TrainerReport:
        return read_report(report_path(self.settings.state)) or TrainerReport()

    def settled(self) -> Sums:
        """The sums, once every event has become something and the trainer has read all of it."""
        found: list[Sums] = []

        def done() -> bool:
            found.append(count_events(self.settings))
            return not found[-1].impressions["open"] and not found[-1].clicks["open"]

        self.until(done, "every event has become something")
        wanted = found[-1].impressions["shown"], found[-1].clicks["actions"], 0

        def learnt() -> bool:
            samples = self.report.samples
            return (samples.seen, samples.actions, samples.waiting) == wanted

        self.until(learnt, f"samples, actions and waiting are {wanted}")
        return found[-1]


@contextmanager
def running(settings: Settings, names: list[str]) -> Iterator[Running]:
    said: list[str] = []
    with ExitStack() as stack:
        launcher = stack.enter_context(broker_and_topics(settings, said.append))
        with Writer(settings, bulk=True) as writer:
            for n, item in enumerate(ITEMS):
                entity = Entity(id=item, attributes={"genres": ["Drama", "Comedy"][: n % 3]})
                writer.send(settings.topic(topics.ITEMS), 0, item.encode(), encode(entity))
        path = settings.state / parts.SETTINGS_FILE
        launcher.begin([parts.build(name, settings, path) for name in names])
        yield Running(settings, launcher, said)


@pytest.mark.timeout(1800)
def test_the_whole_loop(cluster: Settings) -> None:
    first = loop_settings(cluster, "first")
    with running(first, ["job", "writer", "trainer", "server"]) as loop:
        loop.send(SENT[:HALF])
        loop.send(SENT[HALF:], close=True)
        sums = loop.settled()
        assert_sums(first, sums, loop.report)
        loop.until(lambda: loop.launcher.ready(["writer", "server"]), "writer and server are ready")
        loop.launcher.stop_part("trainer")
        assert_served_is_published(first, loop)

    second = loop_settings(cluster, "second")
    with running(second, ["job", "trainer"]) as loop:
        loop.send(SENT[:HALF])
        loop.until(lambda: loop.report.batches > 2, "the trainer learns")
        loop.kill("trainer")
        loop.kill("job")
        loop.send(SENT[HALF:], close=True)
        batches = loop.report.batches
        loop.until(lambda: loop.report.batches > batches + 2, "it goes on")
        loop.kill("trainer")
        loop.until(lambda: loop.launcher.restarts == 3, "what was killed runs again")
        assert loop.settled() == sums
        loop.launcher.stop_part("trainer")
    assert learnt_bytes(second) == learnt_bytes(first)


def assert_sums(settings: Settings, sums: Sums, report: TrainerReport) -> None:
    """Every event is a sample, an action or a dead letter with the reason that the rules give."""
    wanted = expected_of(arrived(settings), MOVIELENS, settings)
    assert sums.balances
    assert sums.impressions["shown"] == len(wanted.shown) > 700
    assert sums.clicks["actions"] == len(wanted.actions) > 100
    assert sums.clicks["features_only"] == wanted.features_only
    assert sums.reasons == Counter(wanted.letters.values())
    assert {"duplicate", "repeated", "unmatched", "too_late", "malformed_json"} <= {*sums.reasons}
    assert sums.late["events"] > 50
    assert report.samples.actions == len(wanted.actions)
    assert report.samples.corrected > 0  # clicks that came after their impression was learnt
    assert (report.samples.repeated, report.samples.refused) == (0, 0)


def assert_served_is_published(settings: Settings, loop: Running) -> None:
    """The server holds the newest version and delta, and ranks by them and by the store's row."""
    client, store = Client(settings), ModelStore(settings.store_url)
    version = store.current("champion")
    assert version is not None
    bundle = read_bundle(store.url("champion", version))
    published = published_vectors(settings, bundle)

    def serves() -> bool:
        held = client.get("/v1/versions")["channels"]["champion"]["serves"]
        return bool(held) and (held["version"], held["delta"]) == (version, published.newest)

    loop.until(serves, f"version {version} and delta {published.newest} are served")
    answer = client.rank("a stranger", ITEMS, k=len(ITEMS), ts=NOW)
    columns = user_columns(
        MOVIELENS,
        RawRows(["a stranger"], [never_seen(MOVIELENS, "user")]),
        Catalogue(MOVIELENS),
        np.array([NOW]),
    )
    user = bundle.base.user_vector(columns, None, bundle.rows_of_items)
    logits = score(user, np.stack([published.vectors[item] for item in ITEMS]))
    assert {one["item_id"]: one["score"] for one in answer["items"]} == pytest.approx(
        dict(zip(ITEMS, expit(logits).tolist(), strict=True)), abs=1e-5
    )
    shown = Counter(
        row[2] for row in expected_of(arrived(settings), MOVIELENS, settings).shown.values()
    )

    def stored() -> bool:
        features = client.get("/v1/users/7")["features"]
        return bool(features) and features["user_impressions"] == shown["7"]

    loop.until(stored, "the feature store has the user's last row")


class Published:
    """Item vectors by id, and the number of the newest delta on them (-1: none)."""

    def __init__(self, vectors: dict[str, Any], newest: int) -> None:
        self.vectors = vectors
        self.newest = newest


def published_vectors(settings: Settings, bundle: LoadedVersion) -> Published:
    """What the version holds, and what the deltas on it have sent since."""
    found = Published(dict(zip(bundle.item_ids, bundle.item_vectors, strict=True)), -1)
    for record in read_span(settings, *span(settings, [topics.MODEL_UPDATES])):
        update = msgspec.json.decode(record.value, type=Update)
        if isinstance(update, Delta) and (update.channel, update.base_version) == (
            "champion",
            bundle.manifest.version,
        ):
            found.newest = record.offset
            vectors = np.frombuffer(update.item_vectors, "<f4").reshape(len(update.item_ids), -1)
            found.vectors.update(zip(update.item_ids, vectors, strict=True))
    return found
