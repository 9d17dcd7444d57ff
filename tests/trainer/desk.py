"""A publisher with all that it publishes from, on real topics and a real store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np

from features.logs.movielens_features import MOVIELENS
from features.model_inputs import Columns
from features.samples import Action, Shown, sample_decoder
from inttower.publish.bundle import LoadedVersion, read_bundle
from inttower.publish.store import ModelStore
from settings.settings import Settings
from streaming.events import Delta, Update
from streaming.kafka import topics
from streaming.kafka.client import admin, end_offsets
from streaming.kafka.span import read_span, span
from streaming.kafka.writer import Writer
from tests.trainer import synthetic
from tests.trainer.build import SMALL, WARMUP, inputs, learner
from tests.trainer.processes import feed, make_topics
from trainer.intake import Intake
from trainer.learning.state_rows import user_rows
from trainer.publisher import Publisher
from trainer.source import SampleSource
from trainer.trainer_metrics import Metrics

CHAMPION, FROZEN = "champion", "frozen"


Rows = np.ndarray[Any, np.dtype[np.float32]]


class Learnt(NamedTuple):
    """Impressions by what happened to them during a call.

    Attributes:
        shown: they came.
        acted: they were clicked.
        taken: their wait passed.
        stepped: a learning step took them.
    """

    shown: list[Shown]
    acted: list[Shown]
    taken: list[Shown]
    stepped: list[Shown]


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
        self._records = sorted(synthetic.records(synthetic.samples(1_000)), key=synthetic.at)
        self._shown: list[Shown] = []
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

    def learn(self, impressions: int) -> Learnt:
        """Take so many impressions and their clicks, with a mark behind them, on to the learner."""
        came = 0
        part: list[bytes] = []
        while came < impressions or synthetic.at(part[-1]) == synthetic.at(self._records[0]):
            part.append(self._records.pop(0))
            came += b"shown_at" in part[-1]
        feed(self.settings, [*part, synthetic.mark(synthetic.at(self._records[0]) - 1)])
        end = self.intake.offsets[0] + len(part) + 1
        while self.intake.offsets[0] < end:
            self.intake.poll(100)
        before, first = self._stages(), len(self._shown)
        acted: set[str] = set()
        for arrived in self.intake.release():
            message = arrived.message
            if isinstance(message, Action):
                acted.add(message.request_id)
            else:
                self._shown.append(message)
            self.learner.add(arrived)
        self.learner.advance(self.intake.order.watermark)
        after = self._stages()
        return Learnt(
            self._shown[first:],
            [s for s in self._shown if s.request_id in acted],
            *(self._shown[a:b] for a, b in zip(before, after, strict=True)),
        )

    def _stages(self) -> tuple[int, int]:
        """How many impressions were taken, and how many of these a step has learnt."""
        learnt = self.learner.counters.learnt
        return learnt, learnt - self.learner.queued

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
