"""IntTower and the models it is compared with, as a plain PyTorch library.

Import every public name from here. Each is loaded at its first use, since PyTorch is slow to load.

>>> from inttower import FeatureSpec, Field, IntTower
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inttower.base.base_filter import Actions as Actions
    from inttower.base.base_filter import BaseConfig as BaseConfig
    from inttower.base.base_filter import BaseFilter as BaseFilter
    from inttower.core.contract import Decoupled as Decoupled
    from inttower.core.contract import Model as Model
    from inttower.core.spec import FeatureSpec as FeatureSpec
    from inttower.core.spec import Field as Field
    from inttower.core.training import Training as Training
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
    from inttower.models.autoint import AutoInt as AutoInt
    from inttower.models.autoint import AutoIntConfig as AutoIntConfig
    from inttower.models.cold import COLD as COLD
    from inttower.models.cold import COLDConfig as COLDConfig
    from inttower.models.dat import DAT as DAT
    from inttower.models.dat import DATConfig as DATConfig
    from inttower.models.dcn import DCN as DCN
    from inttower.models.dcn import DCNConfig as DCNConfig
    from inttower.models.deepfm import DeepFM as DeepFM
    from inttower.models.deepfm import DeepFMConfig as DeepFMConfig
    from inttower.models.dots import Dot as Dot
    from inttower.models.dots import state_dots as state_dots
    from inttower.models.inttower import IntTower as IntTower
    from inttower.models.inttower import IntTowerConfig as IntTowerConfig
    from inttower.models.logistic import LogisticRegression as LogisticRegression
    from inttower.models.stack_warm_up import WarmUpRows as WarmUpRows
    from inttower.models.stacked import Stacked as Stacked
    from inttower.models.stacked import StackedConfig as StackedConfig
    from inttower.models.two_tower import TwoTower as TwoTower
    from inttower.models.two_tower import TwoTowerConfig as TwoTowerConfig
    from inttower.models.wide_deep import WideDeep as WideDeep
    from inttower.models.wide_deep import WideDeepConfig as WideDeepConfig
    from inttower.publish.bundle import LoadedVersion as LoadedVersion
    from inttower.publish.bundle import read_bundle as read_bundle
    from inttower.publish.bundle import write_bundle as write_bundle
    from inttower.publish.published import ServingEncoder as ServingEncoder
    from inttower.publish.published import UserVector as UserVector
    from inttower.publish.published import score as score
    from inttower.publish.scorer import fe_scores as fe_scores
    from inttower.publish.scorer import top_k as top_k
    from inttower.publish.snapshot import ModelSnapshot as ModelSnapshot
    from inttower.publish.store import ModelStore as ModelStore
    from inttower.state.belief import FAST as FAST
    from inttower.state.belief import MEDIUM as MEDIUM
    from inttower.state.belief import SLOW as SLOW
    from inttower.state.belief import BeliefConfig as BeliefConfig
    from inttower.state.belief import Beliefs as Beliefs
    from inttower.state.belief import DriftRates as DriftRates
    from inttower.state.factors import FactorConfig as FactorConfig
    from inttower.state.factors import Factors as Factors
    from inttower.state.factors import Outcomes as Outcomes
    from inttower.state.factors import fit_factors as fit_factors
    from inttower.state.user_state import UserState as UserState
    from inttower.state.user_state import UserStateConfig as UserStateConfig

_MODULES = {
    "base.base_filter": ("Actions", "BaseConfig", "BaseFilter"),
    "models.stack_warm_up": ("WarmUpRows",),
    "models.stacked": ("Stacked", "StackedConfig"),
    "models.autoint": ("AutoInt", "AutoIntConfig"),
    "state.belief": ("FAST", "MEDIUM", "SLOW", "BeliefConfig", "Beliefs", "DriftRates"),
    "publish.bundle": ("LoadedVersion", "read_bundle", "write_bundle"),
    "models.cold": ("COLD", "COLDConfig"),
    "publish.snapshot": ("ModelSnapshot",),
    "core.contract": ("Decoupled", "Model"),
    "models.dat": ("DAT", "DATConfig"),
    "models.dcn": ("DCN", "DCNConfig"),
    "models.deepfm": ("DeepFM", "DeepFMConfig"),
    "models.dots": ("Dot", "state_dots"),
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
    "state.factors": ("FactorConfig", "Factors", "Outcomes", "fit_factors"),
    "models.inttower": ("IntTower", "IntTowerConfig"),
    "core.training": ("Training",),
    "models.logistic": ("LogisticRegression",),
    "publish.published": ("ServingEncoder", "UserVector", "score"),
    "publish.scorer": ("fe_scores", "top_k"),
    "core.spec": ("FeatureSpec", "Field"),
    "publish.store": ("ModelStore",),
    "models.two_tower": ("TwoTower", "TwoTowerConfig"),
    "state.user_state": ("UserState", "UserStateConfig"),
    "models.wide_deep": ("WideDeep", "WideDeepConfig"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name at its first use."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'inttower' has no {name!r}")
    return getattr(import_module(f"inttower.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    """All public names."""
    return sorted(_MODULE_OF)
