"""The settings say what a log's TOML does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.declared import declared_features
from features.logs.movielens_features import MOVIELENS
from features.sql import render_job
from settings.errors import ConfigurationError
from settings.log_settings import ActionKind
from settings.settings import Settings
from streaming.logs import log_section
from streaming.logs.choose import with_log_file
from streaming.logs.parse_log_file import parse_log_file
from tests.streaming.logs.shapes import actions_apart

TOML = """
name = "films"
attribution = "30min"
{more}
[events]
files = "rows.csv"
user = "user"
item = "item"
time = {{column = "time", unit = "s"}}
click = "rating > 3"

[actions]
buy = {{when = "rating = 5", weight = 4}}
hide = {{when = "rating = 1", label = 0, weight = 2.5}}
look = {{when = "rating = 2", label = "none"}}
"""
KINDS = {
    "buy": ActionKind(label=1, weight=4),
    "hide": ActionKind(label=0, weight=2.5),
    "look": ActionKind(label=None),
    "click": ActionKind(label=1),
}


def settings_of(folder: Path, more: str = "", **log: Any) -> Settings:
    path = folder / "films.toml"
    path.write_text(TOML.format(more=more))
    return with_log_file(Settings(state=folder).with_changes(log={"file": str(path), **log}))


def test_kinds_weights_and_wait_come_from_the_toml(tmp_path: Path) -> None:
    found = settings_of(tmp_path, 'wait = "90s"', wait_ms=7, actions={"love": {"label": 1}}).log
    assert found.actions == KINDS
    assert (found.attribution_ms, found.waits_ms) == (1_800_000, 90_000)
    assert settings_of(tmp_path, wait_ms=7).log.waits_ms == 7
    assert settings_of(tmp_path).log.waits_ms == 60_000


def test_the_job_labels_by_them(tmp_path: Path) -> None:
    text = render_job(MOVIELENS, settings_of(tmp_path)).text
    assert "WHEN 'buy' THEN 1 WHEN 'hide' THEN 0 WHEN 'click' THEN 1 END" in text
    assert "WHEN 'hide' THEN CAST(2.5 AS DOUBLE)" in text


def test_a_log_that_is_given_says_the_same(tmp_path: Path) -> None:
    section = Settings(state=tmp_path).with_changes(log=log_section(actions_apart(tmp_path))).log
    assert section.actions == {
        "click": ActionKind(label=1),
        "buy": ActionKind(label=1, weight=3),
        "look": ActionKind(label=None),
    }


@pytest.mark.parametrize(
    ("wait", "message"),
    [("31min", r"small\.toml: .*wait = '31min' is longer than .* \(30min\)"), ("soon", "500ms")],
)
def test_a_wait_that_cannot_be(wait: str, message: str) -> None:
    events = {"files": "f.csv", "user": "u", "item": "i", "time": "t", "click": "c = 1"}
    data = {"name": "small", "attribution": "30min", "wait": wait, "events": events}
    with pytest.raises(ConfigurationError, match=message):
        parse_log_file(data, "small.toml")


def test_features_without_a_log_file_are_movielens_alone(tmp_path: Path) -> None:
    assert declared_features(Settings(state=tmp_path)) is MOVIELENS
    with pytest.raises(ConfigurationError, match=r"'films'.*set log\.file"):
        declared_features(Settings(state=tmp_path).with_changes(log={"name": "films"}))
