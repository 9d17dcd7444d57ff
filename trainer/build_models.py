"""Builds the models that the settings ask for; checks what must not change between starts."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import replace

import msgspec
import torch
from threadpoolctl import threadpool_limits

from inttower.core.contract import Decoupled
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.dat import DAT
from inttower.models.inttower import IntTower, IntTowerConfig
from inttower.models.logistic import LogisticRegression
from inttower.models.two_tower import TwoTower
from inttower.state.user_state import UserState, UserStateConfig
from settings.errors import ConfigurationError
from settings.settings import Settings
from trainer.learning.model_set import Models
from trainer.learning.outcome_feed import LONGEST_CHUNK_MS

log = logging.getLogger(__name__)

# the one with a user state
WITH_STATE = "state"

Make = Callable[[FeatureSpec, Training, int, str], Decoupled]


def _inttower(config: IntTowerConfig) -> Make:
    return lambda spec, training, seed, device: IntTower(
        spec, config, training=training, seed=seed, device=device
    )


# the others have none; each takes a spec, how it learns, a seed and a device
PRESETS: dict[str, Make] = {
    "plus": _inttower(IntTowerConfig.plus()),
    "paper": _inttower(IntTowerConfig.paper()),
    "last_layer": _inttower(IntTowerConfig.last_layer()),
    "two_tower": lambda spec, training, seed, device: TwoTower(
        spec, training=training, seed=seed, device=device
    ),
    "dat": lambda spec, training, seed, device: DAT(
        spec, training=training, seed=seed, device=device
    ),
}


def prepare_torch(settings: Settings) -> None:
    """Make this process compute the same bytes each time. Call it before any model is built."""
    # read by cuBLAS when it starts; without it some of its sums have no fixed order
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(settings.trainer.threads)
    # numpy's own threads: over matrices as small as these they only wait for each other
    threadpool_limits(settings.trainer.threads, user_api="blas")
    # the same flag as use_deterministic_algorithms, which imports torch's compiler: seconds
    torch.set_deterministic_debug_mode("error")


def device(settings: Settings) -> str:
    """The device that the settings mean.

    Raises:
        ConfigurationError: a GPU is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if settings.trainer.device == "cuda" and not there:
        raise ConfigurationError(
            "trainer.device is cuda and PyTorch finds no CUDA device: check nvidia-smi, or set it"
            " to cpu or auto"
        )
    if settings.trainer.device == "auto":
        return "cuda" if there else "cpu"
    return settings.trainer.device


def build_models(settings: Settings, spec: FeatureSpec) -> Models:
    """New models, equal in every process that has these settings.

    Raises:
        ConfigurationError: there is no such preset or device, or nothing to refit.
    """
    trainer = settings.trainer
    if trainer.preset not in (WITH_STATE, *PRESETS):
        raise ConfigurationError(
            f"trainer.preset {trainer.preset!r} is not known: use one of"
            f" {', '.join((WITH_STATE, *PRESETS))}"
        )
    if trainer.refit_samples is not None and trainer.preset != WITH_STATE:
        raise ConfigurationError(
            f"trainer.refit_samples is of the user state, which trainer.preset {trainer.preset!r}"
            f" does not have: unset it, or set the preset to {WITH_STATE}"
        )
    where = device(settings)
    log.info("model %s on %s, %d threads", trainer.preset, where, trainer.threads)
    training = Training(limit=trainer.max_ids, products=trainer.warmup_matmul_dtype)
    state = frozen_state = None
    if trainer.preset == WITH_STATE:
        shape = UserStateConfig(window_ms=2 * LONGEST_CHUNK_MS, max_users=trainer.max_ids)
        frozen_state = UserState(spec, shape)
        state = UserState(spec, replace(shape, refit_every=trainer.refit_samples))

    def tower() -> Decoupled:
        if state is None:
            return PRESETS[trainer.preset](spec, training, trainer.seed, where)
        return IntTower.with_state(spec, state, training=training, seed=trainer.seed, device=where)

    return Models(
        online=tower(),
        frozen=tower(),
        # on the live counters alone: what all else is compared with
        logistic=LogisticRegression(spec, seed=trainer.seed),
        user_state=state,
        frozen_user_state=frozen_state,
    )


def fingerprint(settings: Settings, spec: FeatureSpec) -> dict[str, str]:
    """The settings that a checkpoint cannot outlive: with others the same samples teach another.

    Threads and device change the last bits only and may be changed between two starts.
    """
    trainer = settings.trainer
    fixed = {
        name: getattr(trainer, name)
        for name in (
            "preset",
            "seed",
            "warmup_until_ms",
            "warmup_labels",
            "warmup_most_samples",
            "warmup_epochs",
            "warmup_batch",
            "warmup_matmul_dtype",
            "batch_samples",
            "max_open_rows",
            "late_labels_ms",
            "max_ids",
            "refit_samples",
        )
    }
    if trainer.warmup_until_ms is not None:
        del fixed["warmup_labels"], fixed["warmup_most_samples"]  # they then say nothing
    fields = hashlib.sha256(msgspec.json.encode(spec.to_json())).hexdigest()[:16]
    return {
        "log.name": settings.log.name,
        "log.attribution_ms": str(settings.log.attribution_ms),
        "log.wait_ms": str(settings.log.waits_ms),
        "fields of the model": fields,
        **{f"trainer.{name}": str(value) for name, value in fixed.items()},
    }
