"""Labels that come late: calibration, corrections, and predictions that could have been served."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import expit

from features.model_inputs import model_spec
from inttower.core.batch import FloatArray
from settings.settings import Settings
from tests.trainer.delayed_clicks import ClickStream, DelayedClicks, draw
from trainer.build_models import build_models
from trainer.learning.model_set import MODELS
from trainer.learning.online_learner import OnlineLearner
from trainer.learning.sample_inputs import SampleInputs

HOUR = 3_600_000


class Run(NamedTuple):
    """A learner behind a stream, and the predictions that it recorded [n, models]."""

    learner: OnlineLearner
    logits: FloatArray


def learner(shape: DelayedClicks, wait_ms: int | None, **trainer: object) -> OnlineLearner:
    settings = Settings().with_changes(
        trainer={"device": "cpu", "preset": "two_tower", "warmup_labels": 100, **trainer},
        log={"attribution_ms": shape.window_ms, "wait_ms": wait_ms},
    )
    declared = shape.declaration
    inputs = SampleInputs(declared, shape.catalogue(), lambda _entity, _ids, _at: None)
    return OnlineLearner(settings, declared, build_models(settings, model_spec(declared)), inputs)


def run(shape: DelayedClicks, stream: ClickStream, **trainer: object) -> Run:
    """Learn a stream to its end, each sample when its window has passed."""
    learning = learner(shape, shape.window_ms, **trainer)
    for record in stream.records:
        learning.add(record)
    learning.advance(int(stream.at[-1]) + 100 * HOUR)
    return Run(learning, np.asarray(learning.evaluation.state()["logits"], np.float32))


def calibration(found: Run, stream: ClickStream, model: str, last: int) -> float:
    """Predicted over true clicks of the last rows."""
    predicted = expit(found.logits[-last:, MODELS.index(model)].astype(np.float64))
    return float(predicted.sum() / stream.truth[-last:].sum())


@pytest.mark.parametrize(
    ("rate", "click_rate", "impressions"),
    [(1, 0.05, 12_000), (100, 0.1, 8_000), (10_000, 0.8, 5_000)],
)
def test_the_predicted_rate_is_the_true_one_at_any_traffic(
    rate: float, click_rate: float, impressions: int
) -> None:
    # a click comes some 200 impressions later
    delay_ms = 200_000 / rate
    shape = DelayedClicks(
        impressions, rate, click_rate, delay_ms, window_ms=int(3 * delay_ms), seed=1
    )
    stream = draw(shape)
    found = run(shape, stream, warmup_labels=200)
    assert 0.9 < calibration(found, stream, "online", len(found.logits)) < 1.1
