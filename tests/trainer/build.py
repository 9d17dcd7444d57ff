"""Learners and settings for tests, at the smallest size that still learns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from features.catalogue import Catalogue
from features.logs.movielens_features import MOVIELENS
from features.model_inputs import model_spec
from features.samples import Action, Mark, sample_decoder
from settings.settings import Settings
from tests.trainer import synthetic
from trainer.arrived import Arrived
from trainer.build_models import build_models, prepare_torch
from trainer.learning.online_learner import OnlineLearner
from trainer.learning.sample_inputs import SampleInputs

SMALL: dict[str, Any] = {
    "device": "cpu",
    "warmup_batch": 64,
    "batch_samples": 32,
}
_WARM = synthetic.samples(450)
# the time that ends the warm-up, and the impressions before it
WARM_UNTIL = synthetic.at(_WARM[399][0]) + synthetic.WINDOW_MS + 1
WARMUP = sum(synthetic.at(shown) + synthetic.WINDOW_MS < WARM_UNTIL for shown, _ in _WARM)
SMALL["warmup_until_ms"] = WARM_UNTIL

decode = sample_decoder(MOVIELENS)


def catalogue() -> Catalogue:
    made = Catalogue(MOVIELENS)
    for topic, key, value in synthetic.catalogue():
        made.apply("item" if topic == "items" else "user", key.encode(), value)
    return made


def inputs() -> SampleInputs:
    return SampleInputs(MOVIELENS, catalogue(), lambda _entity, _ids, _at: None)


def learner(log: dict[str, Any] | None = None, **trainer: Any) -> OnlineLearner:
    settings = Settings().with_changes(
        trainer={**SMALL, **trainer},
        log={"attribution_ms": synthetic.WINDOW_MS, **(log or {})},
    )
    prepare_torch(settings)
    models = build_models(settings, model_spec(MOVIELENS))
    return OnlineLearner(settings, MOVIELENS, models, inputs())


def arrived_record(value: bytes, offset: int = 0) -> Arrived:
    message = decode(value)
    assert not isinstance(message, Mark)
    return Arrived(0, offset, value, message)


def in_order(values: Iterable[bytes]) -> list[Arrived]:
    """Records in the order of processing."""

    def key(one: Arrived) -> tuple[int, bool, str, str]:
        m = one.message
        return m.at, not isinstance(m, Action), m.request_id, m.item_id

    return sorted((arrived_record(v, k) for k, v in enumerate(values)), key=key)


def restored(of: OnlineLearner, other: OnlineLearner) -> OnlineLearner:
    """The other one, with what was learnt by the first."""
    other.restore(of.parts(), lambda entry: arrived_record(entry[2], entry[1]))
    return other


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
