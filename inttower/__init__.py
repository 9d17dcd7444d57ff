"""IntTower and the models it is compared with, as a plain PyTorch library.

Everything that is meant to be used from outside can be imported from here; each name is loaded when
it is first asked for, since PyTorch loads slowly.

>>> from inttower import FeatureSpec, Field, IntTower
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inttower.autoint import AutoInt as AutoInt
    from inttower.autoint import AutoIntConfig as AutoIntConfig
    from inttower.belief import FAST as FAST
    from inttower.belief import MEDIUM as MEDIUM
    from inttower.belief import SLOW as SLOW
    from inttower.belief import BeliefConfig as BeliefConfig
    from inttower.belief import Beliefs as Beliefs
    from inttower.belief import Speed as Speed
    from inttower.bundle import Served as Served
    from inttower.bundle import read_bundle as read_bundle
    from inttower.bundle import write_bundle as write_bundle
    from inttower.cold import COLD as COLD
    from inttower.cold import COLDConfig as COLDConfig
    from inttower.contents import Contents as Contents
    from inttower.contract import Decoupled as Decoupled
    from inttower.contract import Model as Model
    from inttower.dat import DAT as DAT
    from inttower.dat import DATConfig as DATConfig
    from inttower.dcn import DCN as DCN
    from inttower.dcn import DCNConfig as DCNConfig
    from inttower.deepfm import DeepFM as DeepFM
    from inttower.deepfm import DeepFMConfig as DeepFMConfig
    from inttower.dots import Dot as Dot
    from inttower.dots import state_dots as state_dots
    from inttower.errors import BundleError as BundleError
    from inttower.errors import IntTowerError as IntTowerError
    from inttower.errors import NotDecoupledError as NotDecoupledError
    from inttower.errors import SpecError as SpecError
    from inttower.errors import StaleBatchError as StaleBatchError
    from inttower.errors import StateError as StateError
    from inttower.errors import StoreError as StoreError
    from inttower.evaluate import auc as auc
    from inttower.evaluate import calibration as calibration
    from inttower.evaluate import gauc as gauc
    from inttower.evaluate import logloss as logloss
    from inttower.factors import FactorConfig as FactorConfig
    from inttower.factors import Factors as Factors
    from inttower.factors import Outcomes as Outcomes
    from inttower.factors import fit_factors as fit_factors
    from inttower.inttower import IntTower as IntTower
    from inttower.inttower import IntTowerConfig as IntTowerConfig
    from inttower.logistic import LogisticRegression as LogisticRegression
    from inttower.published import Base as Base
    from inttower.published import UserVector as UserVector
    from inttower.published import score as score
    from inttower.scorer import fe_scores as fe_scores
    from inttower.scorer import top_k as top_k
    from inttower.spec import FeatureSpec as FeatureSpec
    from inttower.spec import Field as Field
    from inttower.store import ModelStore as ModelStore
    from inttower.training import Training as Training
    from inttower.two_tower import TwoTower as TwoTower
    from inttower.two_tower import TwoTowerConfig as TwoTowerConfig
    from inttower.user_state import UserState as UserState
    from inttower.user_state import UserStateConfig as UserStateConfig
    from inttower.wide_deep import WideDeep as WideDeep
    from inttower.wide_deep import WideDeepConfig as WideDeepConfig

_MODULES = {
    "autoint": ("AutoInt", "AutoIntConfig"),
    "belief": ("FAST", "MEDIUM", "SLOW", "BeliefConfig", "Beliefs", "Speed"),
    "bundle": ("Served", "read_bundle", "write_bundle"),
    "cold": ("COLD", "COLDConfig"),
    "contents": ("Contents",),
    "contract": ("Decoupled", "Model"),
    "dat": ("DAT", "DATConfig"),
    "dcn": ("DCN", "DCNConfig"),
    "deepfm": ("DeepFM", "DeepFMConfig"),
    "dots": ("Dot", "state_dots"),
    "errors": (
        "BundleError",
        "IntTowerError",
        "NotDecoupledError",
        "SpecError",
        "StaleBatchError",
        "StateError",
        "StoreError",
    ),
    "evaluate": ("auc", "calibration", "gauc", "logloss"),
    "factors": ("FactorConfig", "Factors", "Outcomes", "fit_factors"),
    "inttower": ("IntTower", "IntTowerConfig"),
    "training": ("Training",),
    "logistic": ("LogisticRegression",),
    "published": ("Base", "UserVector", "score"),
    "scorer": ("fe_scores", "top_k"),
    "spec": ("FeatureSpec", "Field"),
    "store": ("ModelStore",),
    "two_tower": ("TwoTower", "TwoTowerConfig"),
    "user_state": ("UserState", "UserStateConfig"),
    "wide_deep": ("WideDeep", "WideDeepConfig"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load what is asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'inttower' has no {name!r}")
    return getattr(import_module(f"inttower.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    """All names."""
    return sorted(_MODULE_OF)
