"""A publisher with all that it publishes from, on real topics and a real store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from features.logs.movielens_features import MOVIELENS
from features.model_inputs import Columns
from features.samples import Sample, sample_decoder
from inttower.publish.bundle import LoadedVersion, read_bundle
from inttower.publish.store import ModelStore
from settings.settings import Settings
from streaming.events import Delta, Update
from streaming.kafka import topics
from streaming.kafka.client import admin, end_offsets
from streaming.kafka.span import read_span, span
from streaming.kafka.writer import Writer
from tests.trainer import synthetic
from tests.trainer.build import SMALL, inputs, learner
from tests.trainer.processes import feed, make_topics
from trainer.intake import Intake
from trainer.publisher import Publisher
from trainer.source import SampleSource
from trainer.state_rows import user_rows
from trainer.trainer_metrics import Metrics

WARMUP = SMALL["warmup_samples"]
CHAMPION, FROZEN = "champion", "frozen"


Rows = np.ndarray[Any, np.dtype[np.float32]]


class Desk:
    """All parts, and the tests' hands on them."""

    def __init__(self, settings: Settings, **trainer: Any) -> None:
        self.settings = settings.with_changes(
            trainer={**SMALL, **trainer, "version_every_s": 1e6, "delta_every_ms": 0}
        )
        make_topics(self.settings)
        self.learner = learner(**trainer)
        self.model = self.learner.models.online
        self.inputs = inputs()
        self.store = ModelStore(self.settings.store_url)
        self._source = SampleSource(self.settings, {})
        self.intake = Intake(self._source, sample_decoder(MOVIELENS))
        self._log = iter(synthetic.partition_log(synthetic.samples(900), every=1))
        self._writers: list[Writer] = []
        self.metrics = Metrics()
        self.publisher = self.start("run 1")

    def start(self, run: str) -> Publisher:
        """What a new process has; the learner stands for one restored."""
        self._writers.append(Writer(self.settings, bulk=False))
        self.publisher = Publisher(
            self.settings,
            self.learner,
            self.inputs,
            self.metrics,
            run=run,
            intake=self.intake,
            writer=self._writers[-1],
        )
        return self.publisher

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._source.close()

    def learn(self, samples: int) -> list[Sample]:
        """Take so many samples, a mark behind each, on to the learner; the batches learnt."""
        feed(self.settings, [next(self._log) for _ in range(2 * samples)])
        learnt: list[Sample] = []
        end = self.intake.offsets[0] + 2 * samples
        while self.intake.offsets[0] < end:
            self.intake.poll(100)
        for arrived in self.intake.release():
            for batch in self.learner.add(arrived):
                learnt += batch
                self.publisher.touch(batch)
        self.learner.advance(0)  # ends a warm-up that has its samples
        return learnt

    def warm_up(self) -> None:
        self.learn(WARMUP)
        while not self.learner.warm:  # the last ones wait for a mark past them
            self.learn(1)

    def served(self, channel: str, version: str) -> LoadedVersion:
        return read_bundle(self.store.url(channel, version))

    def updates(self, start: int = 0) -> list[Update]:
        """What lies on ``model.updates`` from an offset on."""
        self.publisher.flush()
        first, end = span(self.settings, [topics.MODEL_UPDATES])
        found = list(read_span(self.settings, dict.fromkeys(first, start), end))
        assert all(len(record.value) < 1_000_000 for record in found)
        return [msgspec.json.decode(record.value, type=Update) for record in found]

    def deltas(self, start: int = 0) -> list[Delta]:
        return [one for one in self.updates(start) if isinstance(one, Delta)]

    def end(self) -> int:
        with admin(self.settings) as client:
            return end_offsets(client, self.settings.topic(topics.MODEL_UPDATES))[0]

    def current_columns(self, ids: Sequence[str]) -> Columns:
        return self.inputs.items(ids, self.learner.items, self.learner.models.user_state)

    def user_rows(self, ids: Sequence[str]) -> Rows:
        """All that a server needs of users, as it is now."""
        columns = self.inputs.statics("user", ids)
        return user_rows(self.model, self.learner.models.user_state, columns)


def floats(data: bytes, rows: int) -> Rows:
    return np.frombuffer(data, "<f4").reshape(rows, -1)
