"""Learners and settings for tests, at the smallest size that still learns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from features.catalogue import Catalogue
from features.logs.movielens_features import MOVIELENS
from features.model_inputs import model_spec
from features.samples import Sample, sample_decoder
from settings.settings import Settings
from tests.trainer import synthetic
from trainer.arrived import Arrived
from trainer.build_models import build_models, prepare_torch
from trainer.online_learner import OnlineLearner
from trainer.sample_inputs import SampleInputs

SMALL: dict[str, Any] = {
    "device": "cpu",
    "warmup_samples": 400,
    "warmup_batch": 64,
    "batch_samples": 32,
    "batch_span_ms": 30_000,
}

decode = sample_decoder(MOVIELENS)


def catalogue() -> Catalogue:
    made = Catalogue(MOVIELENS)
    for topic, key, value in synthetic.catalogue():
        made.apply("item" if topic == "items" else "user", key.encode(), value)
    return made


def inputs() -> SampleInputs:
    return SampleInputs(MOVIELENS, catalogue(), lambda _entity, _ids, _at: None)


def learner(**trainer: Any) -> OnlineLearner:
    settings = Settings().with_changes(
        trainer={**SMALL, **trainer}, log={"attribution_ms": synthetic.CLOSE_NEGATIVE_MS}
    )
    prepare_torch(settings)
    models = build_models(settings, model_spec(MOVIELENS))
    return OnlineLearner(settings.trainer, MOVIELENS, models, inputs())


def arrived(values: Iterable[bytes]) -> list[Arrived]:
    """Samples in the order of learning."""
    made = []
    for offset, value in enumerate(values):
        sample = decode(value)
        assert isinstance(sample, Sample)
        made.append(Arrived(0, offset, value, sample))
    return sorted(made, key=lambda a: (a.closed_ts, a.request_id, a.item_id))


def digest(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """A hash of each part's names, types, shapes and bytes."""
    hashes = {}
    for name, part in parts.items():
        sha = hashlib.sha256()
        for entry, value in sorted(part.items()):
            array = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
            sha.update(f"{entry} {array.dtype} {array.shape} ".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
        hashes[name] = sha.hexdigest()
    return hashes
