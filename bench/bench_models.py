"""The models that benches compare, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.split import TASTES
from inttower.core.contract import Model
from inttower.core.learner import Learner
from inttower.core.spec import FeatureSpec
from inttower.core.training import Training
from inttower.models.autoint import AutoInt, AutoIntConfig
from inttower.models.cold import COLD, COLDConfig
from inttower.models.dat import DAT, DATConfig
from inttower.models.dcn import DCN, DCNConfig
from inttower.models.deepfm import DeepFM, DeepFMConfig
from inttower.models.dots import Dot, state_dots
from inttower.models.inttower import IntTower, IntTowerConfig
from inttower.models.logistic import LogisticRegression
from inttower.models.two_tower import TwoTower, TwoTowerConfig
from inttower.models.wide_deep import WideDeep, WideDeepConfig
from settings.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Contender:
    """A model that takes part in a bench, by name.

    Args:
        title: as tables show it.
        make: a new model of this spec and seed.
        needs_dense: it reads dense features only, so a bench without live features skips it.
        state: it reads the user state as inputs (its name ends in ``+state``).
    """

    title: str
    make: Callable[[FeatureSpec, int], Model]
    needs_dense: bool = False
    state: bool = False


WITH_STATE = "+state"
BFLOAT16 = "+bf16"


def _dots(spec: FeatureSpec) -> tuple[Dot, ...]:
    """Dots of the pairs of vectors that the spec has."""
    names = {f.name for f in spec.fields}
    return tuple(Dot(u, v) for u, v in (TASTES,) if {u, v} <= names) + state_dots(spec)


MODELS: dict[str, Contender] = {
    "lr": Contender(
        "logistic regression",
        lambda spec, seed: LogisticRegression(spec, seed=seed),
        needs_dense=True,
    ),
    "two-tower": Contender(
        "two-tower, cosine",
        lambda spec, seed: TwoTower(spec, TwoTowerConfig(dots=_dots(spec)), seed=seed),
    ),
    "two-tower-dot": Contender(
        "two-tower, dot",
        lambda spec, seed: TwoTower(
            spec, TwoTowerConfig(similarity="dot", dots=_dots(spec)), seed=seed
        ),
    ),
    "dat": Contender(
        "DAT",
        lambda spec, seed: DAT(spec, DATConfig(dots=_dots(spec)), seed=seed),
    ),
    "cold": Contender(
        "COLD",
        lambda spec, seed: COLD(spec, COLDConfig(dots=_dots(spec)), seed=seed),
    ),
    "wide-deep": Contender(
        "Wide & Deep",
        lambda spec, seed: WideDeep(spec, WideDeepConfig(dots=_dots(spec)), seed=seed),
    ),
    "deepfm": Contender(
        "DeepFM",
        lambda spec, seed: DeepFM(spec, DeepFMConfig(dots=_dots(spec)), seed=seed),
    ),
    "dcn": Contender(
        "DCN-v2",
        lambda spec, seed: DCN(spec, DCNConfig(dots=_dots(spec)), seed=seed),
    ),
    "autoint": Contender(
        "AutoInt+",
        lambda spec, seed: AutoInt(spec, AutoIntConfig(dots=_dots(spec)), seed=seed),
    ),
    "inttower": Contender(
        "IntTower+",
        lambda spec, seed: IntTower(spec, IntTowerConfig.plus(_dots(spec)), seed=seed),
    ),
    "inttower-paper": Contender(
        "IntTower, paper form",
        lambda spec, seed: IntTower(
            spec, replace(IntTowerConfig.paper(), dots=state_dots(spec)), seed=seed
        ),
    ),
    "inttower-last": Contender(
        "IntTower, last layer",
        lambda spec, seed: IntTower(
            spec, replace(IntTowerConfig.last_layer(), dots=state_dots(spec)), seed=seed
        ),
    ),
}


def contender(name: str, *, in_time: bool = True) -> Contender:
    """The model of this name.

    Args:
        name: see :data:`MODELS`.
        in_time: the bench goes in time order, so that a user state is possible.

    Each can also read the user state (``+state``) and warm up with bfloat16 products (``+bf16``).

    >>> contender("lr").title, contender("dcn+state").title
    ('logistic regression', 'DCN-v2 + user state')
    >>> contender("inttower+state+bf16").title
    'IntTower+ + user state, bfloat16'

    Raises:
        ConfigurationError: there is none.
    """
    exact = name.removesuffix(BFLOAT16)
    plain = exact.removesuffix(WITH_STATE)
    try:
        found = MODELS[plain]
    except KeyError:
        raise ConfigurationError(
            f"no model {name!r}: --model may be {', '.join(MODELS)}; append {WITH_STATE}"
            f" for the user state (benches in time order), then {BFLOAT16}"
        ) from None
    if exact != plain and not in_time:
        raise ConfigurationError(
            f"--model {name}: this bench keeps no user state: use {plain}, or compare with the"
            " state by `headrace bench online`"
        )
    if exact != plain:
        found = replace(
            _trained(found, Training.beside_user_state),
            title=f"{found.title} + user state",
            state=True,
        )
    if name != exact:
        found = replace(
            _trained(found, lambda training: replace(training, products="bfloat16")),
            title=f"{found.title}, bfloat16",
        )
    return found


def _trained(found: Contender, change: Callable[[Training], Training]) -> Contender:
    def make(spec: FeatureSpec, seed: int) -> Model:
        model = found.make(spec, seed)
        if isinstance(model, Learner):
            model.training = change(model.training)
        return model

    return replace(found, make=make)
