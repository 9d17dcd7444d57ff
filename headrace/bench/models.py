"""The models that benches compare, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from headrace.bench.split import TASTES
from inttower.contract import Model
from inttower.dots import Dot
from inttower.inttower import IntTower, IntTowerConfig
from inttower.logistic import LogisticRegression
from inttower.spec import FeatureSpec
from streaming.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Contender:
    """A model under a name.

    Args:
        title: as tables show it.
        make: a new model of this spec and seed.
        needs_dense: it reads numbers alone, so there is nothing of it without live features.
    """

    title: str
    make: Callable[[FeatureSpec, int], Model]
    needs_dense: bool = False


def _dots(spec: FeatureSpec) -> tuple[Dot, ...]:
    """Pairs of vectors that meet in an additive term, as far as the spec has them."""
    names = {f.name for f in spec.fields}
    return tuple(Dot(u, v) for u, v in (TASTES,) if {u, v} <= names)


MODELS: dict[str, Contender] = {
    "lr": Contender(
        "logistic regression",
        lambda spec, seed: LogisticRegression(spec, seed=seed),
        needs_dense=True,
    ),
    "inttower": Contender(
        "IntTower+",
        lambda spec, seed: IntTower(spec, IntTowerConfig.plus(_dots(spec)), seed=seed),
    ),
    "inttower-paper": Contender(
        "IntTower, paper form",
        lambda spec, seed: IntTower(spec, IntTowerConfig.paper(), seed=seed),
    ),
    "inttower-last": Contender(
        "IntTower, last layer",
        lambda spec, seed: IntTower(spec, IntTowerConfig.last_layer(), seed=seed),
    ),
}


def contender(name: str) -> Contender:
    """The model of this name.

    >>> contender("lr").title
    'logistic regression'

    Raises:
        ConfigurationError: there is none.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise ConfigurationError(
            f"no model {name!r} to compare: --model may be {', '.join(MODELS)}"
        ) from None
