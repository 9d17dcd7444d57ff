"""The quality gate: whether a version is good enough to serve, by the figures in its manifest.

The trainer writes into the manifest how well its models predicted the rows of a sliding window
before they learnt them: the version's own model (``online``) and the simple ones (its weights left
frozen, logistic regression), all on the same rows. A version is refused if it

1. ranks worse than an absolute floor (``serving.min_auc``), by more than chance,
2. predicts a click rate that is off by more than ``serving.max_calibration``, by more than chance,
3. is worse than the best of the simple models on the same rows, in AUC (``serving.min_auc_ratio``)
   or log loss (``serving.max_logloss_ratio``),
4. is worse by the same ratios than the best of the versions before it that still lie in the store.

Windows of two versions hold other rows, which may be harder. So for the fourth rule a figure is
first divided by that of the best simple model on its own window. The third rule bounds what many
small steps down can add up to.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from settings.serving_settings import ServingSettings

# a figure must be this many standard errors beyond a limit
_ERRORS = 3.0


class ModelFigures(msgspec.Struct, frozen=True):
    """Figures of one model over the window; see :class:`inttower.evaluate.Figures`."""

    rows: int = 0
    positives: int = 0
    auc: float | None = None
    logloss: float | None = None
    calibration: float | None = None


class _Metrics(msgspec.Struct, frozen=True):
    window: dict[str, ModelFigures] = {}


def doubt(metrics: Mapping[str, Any], before: Iterable[object], limits: ServingSettings) -> str:
    """Why a version should not serve; empty: it may.

    Args:
        metrics: of its manifest. Without a window there is nothing to judge, and it may serve.
        before: the metrics of earlier versions that were not refused; unreadable ones are
            skipped.
        limits: the settings.

    Raises:
        ValueError: the metrics have another form.
    """
    window = msgspec.convert(metrics, _Metrics).window
    online = window.get("online")
    if online is None:
        return ""
    simple = [figures for name, figures in window.items() if name != "online"]
    earlier = [found.window for m in before if (found := _readable(m)) is not None]
    why = (
        _floor(online, limits)
        or _calibration(online, limits)
        or _beside(online, window, limits)
        or _worse(online, simple, earlier, limits)
    )
    return why and f"{why}; to serve it all the same: headrace rollback --to"


def _readable(metrics: object) -> _Metrics | None:
    try:
        return msgspec.convert(metrics, _Metrics)
    except msgspec.ValidationError:
        return None


def _floor(online: ModelFigures, limits: ServingSettings) -> str:
    positives, negatives = online.positives, online.rows - online.positives
    if online.auc is None:
        return ""
    # of a ranking by chance (Mann-Whitney)
    error = 0.0
    if positives > 0 and negatives > 0:
        error = math.sqrt((online.rows + 1) / (12 * positives * negatives))
    if online.auc + _ERRORS * error >= limits.min_auc:
        return ""
    return f"its window AUC {online.auc:.4f} is below the floor of {limits.min_auc:g}"


def _calibration(online: ModelFigures, limits: ServingSettings) -> str:
    if not online.calibration or not online.positives:
        return ""
    # the number of clicks is uncertain by its root
    most = limits.max_calibration * (1 + _ERRORS / math.sqrt(online.positives))
    if 1 / most <= online.calibration <= most:
        return ""
    return (
        f"it predicts {online.calibration:.3g} times the clicks of its window, and"
        f" {1 / most:.2f} to {most:.2f} is allowed"
    )


def _beside(
    online: ModelFigures, window: Mapping[str, ModelFigures], limits: ServingSettings
) -> str:
    for name, simple in window.items():
        if name == "online":
            continue
        if online.auc and simple.auc and online.auc < limits.min_auc_ratio * simple.auc:
            return (
                f"its window AUC {online.auc:.4f} is below {limits.min_auc_ratio:g} of"
                f" {simple.auc:.4f}, that of {name} on the same rows"
            )
        most = limits.max_logloss_ratio
        if online.logloss and simple.logloss and online.logloss > most * simple.logloss:
            return (
                f"its window log loss {online.logloss:.4f} is above {most:g} of"
                f" {simple.logloss:.4f}, that of {name} on the same rows"
            )
    return ""


def _worse(
    online: ModelFigures,
    simple: list[ModelFigures],
    earlier: list[dict[str, ModelFigures]],
    limits: ServingSettings,
) -> str:
    """Against the best earlier version, each relative to the simple models of its own window."""
    aucs, losses = list[float](), list[float]()
    for window in earlier:
        if "online" not in window:
            continue
        others = [figures for name, figures in window.items() if name != "online"]
        if (auc := _relative_auc(window["online"], others)) is not None:
            aucs.append(auc)
        if (loss := _relative_logloss(window["online"], others)) is not None:
            losses.append(loss)
    auc, loss = _relative_auc(online, simple), _relative_logloss(online, simple)
    if auc is not None and aucs and auc < limits.min_auc_ratio * max(aucs):
        return (
            f"its window AUC {auc:.4f} is below {limits.min_auc_ratio:g} of {max(aucs):.4f}, that"
            f" of an earlier version{_RELATIVE if simple else ''}"
        )
    if loss is not None and losses and loss > limits.max_logloss_ratio * min(losses):
        return (
            f"its window log loss {loss:.4f} is above {limits.max_logloss_ratio:g} of"
            f" {min(losses):.4f}, that of an earlier version{_RELATIVE if simple else ''}"
        )
    return ""


_RELATIVE = " (each over the best simple model's)"


def _relative_auc(online: ModelFigures, simple: list[ModelFigures]) -> float | None:
    if online.auc is None:
        return None
    return online.auc / max((f.auc for f in simple if f.auc), default=1.0)


def _relative_logloss(online: ModelFigures, simple: list[ModelFigures]) -> float | None:
    """None without a simple model: log losses of two windows cannot be compared as they are."""
    best = min((f.logloss for f in simple if f.logloss), default=None)
    return None if online.logloss is None or best is None else online.logloss / best
