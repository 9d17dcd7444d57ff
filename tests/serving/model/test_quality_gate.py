"""What the gate lets pass: figures as the trainer writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from serving.model.quality_gate import doubt
from settings.serving_settings import ServingSettings

LIMITS = ServingSettings()
# IntTower on MovieLens 1M, and a news log on which learning went wrong
FILMS = {
    "online": {"auc": 0.902, "logloss": 0.311, "calibration": 1.01},
    "frozen_weights": {"auc": 0.901, "logloss": 0.314, "calibration": 0.99},
    "logistic_regression": {"auc": 0.872, "logloss": 0.351, "calibration": 1.0},
}
NEWS = {
    "online": {"auc": 0.52, "logloss": 0.68, "calibration": 11.0},
    "frozen_weights": {"auc": 0.57, "logloss": 0.16, "calibration": 0.95},
}


def metrics(
    window: dict[str, dict[str, float]],
    online: Mapping[str, float | None] | None = None,
    positives: int = 4_000,
) -> dict[str, Any]:
    """A manifest's figures, with some of the online model's replaced."""
    rows = {"rows": 20_000, "positives": positives}
    made: dict[str, Any] = {name: {**rows, **figures} for name, figures in window.items()}
    made["online"] |= online or {}
    return {"run": "x", "learnt": 5, "window": made}


def refused(
    found: dict[str, Any], *before: dict[str, Any], limits: ServingSettings = LIMITS
) -> str:
    return doubt(found, before, limits)


def test_a_good_version_passes() -> None:
    assert refused(metrics(FILMS)) == ""
    assert refused(metrics(FILMS), metrics(FILMS), {}, {"window": 3}) == ""
    assert refused({"run": "x"}, metrics(FILMS)) == ""


@pytest.mark.parametrize(
    ("online", "why"),
    [
        ({"auc": 0.40}, "below the floor of 0.5"),
        ({"calibration": 11.0}, "11 times the clicks"),
        ({"calibration": 0.3}, "0.3 times the clicks"),
        ({"auc": 0.87}, "below 0.97 of 0.9010, that of frozen_weights"),
        ({"logloss": 0.335}, "log loss 0.3350 is above 1.05 of 0.3140"),
    ],
)
def test_what_is_wrong_is_said(online: dict[str, float], why: str) -> None:
    found = refused(metrics(FILMS, online))
    assert why in found
    assert "headrace rollback --to" in found
    assert (refused(metrics(FILMS, dict.fromkeys(online)))) == ""  # what is not told cannot fail


def test_each_figure_alone_stops_the_model_that_collapsed() -> None:
    for kept in NEWS["online"]:
        untold = {name: None for name in NEWS["online"] if name != kept}
        assert refused(metrics(NEWS, untold, positives=600))


def test_few_rows_are_forgiven_more() -> None:
    """A limit is passed only where chance cannot explain it."""
    assert refused(metrics(FILMS, {"calibration": 3.0}, positives=4)) == ""
    assert refused(metrics(FILMS, {"calibration": 9.0}, positives=4))
    simple = {"online": FILMS["online"]}
    assert refused(metrics(simple, {"auc": 0.4}, positives=20)) == ""
    assert refused(metrics(simple, {"auc": 0.4}, positives=2_000))


def test_a_harder_window_is_no_fault() -> None:
    """All models fall together: news of a day on which nobody can be foretold."""
    hard = {name: {**f, "auc": f["auc"] - 0.2, "logloss": 0.5} for name, f in FILMS.items()}
    assert refused(metrics(hard), metrics(FILMS)) == ""
    # but not if the simple models did not fall with it
    fallen = metrics(FILMS, {"auc": 0.875, "logloss": 0.325})
    assert refused(fallen) == ""
    assert "that of an earlier version" in refused(
        fallen, metrics(FILMS, {"auc": 0.91, "logloss": 0.30})
    )


def test_many_small_steps_down_end_at_the_simple_models() -> None:
    """The last version alone as the measure would let the AUC fall by 3 % each minute."""
    kept, auc = [metrics(FILMS)], 0.902
    while not refused(found := metrics(FILMS, {"auc": auc}), *kept[-1:]):
        kept.append(found)
        auc *= 0.98
    assert auc > 0.97 * 0.87


def test_without_simple_models_the_best_of_the_store_is_the_measure() -> None:
    alone = {"online": FILMS["online"]}
    before = [metrics(alone, {"auc": auc}) for auc in (0.90, 0.88)]
    assert refused(metrics(alone, {"auc": 0.875}), *before) == ""
    assert "0.8700 is below 0.97 of 0.9000" in refused(metrics(alone, {"auc": 0.87}), *before)


def test_the_limits_are_settings() -> None:
    wide = ServingSettings(max_calibration=12, min_auc=0, min_auc_ratio=0.5, max_logloss_ratio=10)
    assert refused(metrics(NEWS), limits=wide) == ""


def test_metrics_of_another_form_are_an_error() -> None:
    windows: list[Any] = [None, [], {"online": 3}, {"online": {"auc": "x"}}]
    for window in windows:
        with pytest.raises(ValueError, match="Expected"):
            doubt({"window": window}, [], LIMITS)
