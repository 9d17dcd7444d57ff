"""Settings of a simulated world, in TOML, and the presets.

Times in these settings are seconds, hours or days of the world's own time. A driver that runs at a
speed of 60 plays an hour of it in a minute.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from settings.errors import ConfigurationError

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


class UserSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The people.

    Attributes:
        count: how many there are in the end.
        new_share: of them, how many come for the first time during the run.
        segments: groups with a taste in common; a user's is an attribute of the profile.
        activity: sigma of the lognormal number of sessions a user has.
        requests_a_session: mean of a geometric number.
        gap_s: mean time between the requests of a session.
        drift: share of the variance of a taste that changes with time.
        drift_h: time after which the correlation of the changing part has fallen to 1/e.
        daily: how much busier than the mean the busiest hour is; 0: every hour alike.
    """

    count: Count = 5_000
    new_share: Share = 0.3
    segments: Count = 8
    activity: NotNegative = 1.0
    requests_a_session: Annotated[float, msgspec.Meta(ge=1)] = 4.0
    gap_s: Positive = 30.0
    drift: Share = 0.5
    drift_h: Positive = 48.0
    daily: Share = 0.5


class ItemSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The catalogue.

    Attributes:
        count: items at the start.
        new_a_day: items that are added a day.
        life_h: an item is offered for so long; 0: for ever.
        half_life_h: the odds of a click halve each so many hours of age; 0: never.
        categories: of different sizes (Zipf).
        tags: all there are; an item has one to three.
    """

    count: Count = 3_000
    new_a_day: NotNegative = 50.0
    life_h: NotNegative = 0.0
    half_life_h: NotNegative = 0.0
    categories: Count = 24
    tags: Count = 200


class ClickSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why people click. The weights are standard deviations of parts of the logit.

    Attributes:
        rate: clicks an impression when items are shown at random.
        taste: the user's taste meets the item.
        quality: the item, whoever looks.
        user: the user, whatever there is to see.
        mood: the logit gained by the one category that a session is after.
        context: device, page and hour.
        position_bias: eta of examination = (1 + position) ** -eta; 0: all is looked at.
        attribution_s: how long after its impression an action counts, in the declared log.
    """

    rate: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.05
    taste: NotNegative = 1.2
    quality: NotNegative = 0.7
    user: NotNegative = 0.5
    mood: NotNegative = 1.0
    context: NotNegative = 0.3
    position_bias: NotNegative = 0.5
    attribution_s: Positive = 1_800.0


class SlateSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked for and what is shown of the answer.

    Attributes:
        candidates: that the application asks to be ranked.
        returned: how many it asks back (``k``).
        shown: how many of these a heavy ranker keeps.
        heavy_noise: sigma of that ranker's error, added to the true logit.
        first_stage: how much of the server's order it keeps: 0 ignores it, 1 shows it unchanged.
    """

    candidates: Count = 200
    returned: Count = 50
    shown: Count = 10
    heavy_noise: NotNegative = 1.0
    first_stage: Share = 0.7


class ActionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A kind of action.

    Attributes:
        after: what it follows: a ``click``, or a look (``examined``) without a click.
        share: of these, how many are followed by it. Of a click itself: unused.
        delay_s: mean time since the impression, or since the click that it follows.
        sigma: of a lognormal delay; 0: exponential.
        priced: carries the item's price as its value.
        label: what the declared log takes it for: 1 a positive, 0 a negative, "none" no label.
    """

    after: Literal["examined", "click"] = "click"
    share: Share = 1.0
    delay_s: NotNegative = 10.0
    sigma: NotNegative = 1.0
    priced: bool = False
    label: Literal[1, 0, "none"] = "none"


class OutageSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From ``start_s`` on nothing is delivered for ``seconds``, then everything at once."""

    start_s: NotNegative
    seconds: Positive


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens to an event on its way.

    Attributes:
        network_ms: mean of an exponential delay that every event has.
        late_share: of actions that come ``late_s`` (from, to; log-uniform) later.
        late_impression_share: the same of impressions.
        late_s: see there.
        lost_share: of events that never come.
        duplicate_share: of events that come a second time, as late as late ones.
        wrong_clock_share: of users whose device has a wrong clock, wrong by ``wrong_clock_s``
            (from, to; log-uniform), ahead or behind.
        wrong_clock_s: see there.
        outages: when nothing is delivered.
    """

    network_ms: NotNegative = 50.0
    late_share: Share = 0.1
    late_impression_share: Share = 0.0
    late_s: tuple[Positive, Positive] = (1.0, 600.0)
    lost_share: Share = 0.0
    duplicate_share: Share = 0.01
    wrong_clock_share: Share = 0.0
    wrong_clock_s: tuple[Positive, Positive] = (60.0, 72_000.0)
    outages: tuple[OutageSettings, ...] = ()


_ACTIONS = {
    "click": ActionSettings(after="examined", delay_s=10.0, label=1),
    "like": ActionSettings(share=0.1, delay_s=60.0),
    "hide": ActionSettings(after="examined", share=0.005, delay_s=5.0, label=0),
}


class WorldSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole world; every table may be left out."""

    users: UserSettings = UserSettings()
    items: ItemSettings = ItemSettings()
    clicks: ClickSettings = ClickSettings()
    slate: SlateSettings = SlateSettings()
    actions: dict[str, ActionSettings] = msgspec.field(default_factory=lambda: dict(_ACTIONS))
    delivery: DeliverySettings = DeliverySettings()

    def with_changes(self, changes: Mapping[str, Any]) -> WorldSettings:
        """These settings with some keys replaced; tables are merged, lists are not.

        Raises:
            ConfigurationError: a key or value that cannot be; the text has its path.

        >>> WorldSettings().with_changes({"clicks": {"rate": 0.2}}).clicks.rate
        0.2
        """
        whole = _merged(msgspec.to_builtins(self), changes)
        try:
            made = msgspec.convert(whole, WorldSettings, strict=False)
        except msgspec.ValidationError as error:
            raise ConfigurationError(
                f"the world's settings: {error}; `headrace simulate --show` prints all there are"
            ) from error
        made.check()
        return made

    def check(self) -> None:
        """Refuse what no single value shows to be wrong.

        Raises:
            ConfigurationError: says which settings contradict each other.
        """
        slate = self.slate
        if not slate.shown <= slate.returned <= slate.candidates:
            raise ConfigurationError(
                f"slate: shown {slate.shown} <= returned {slate.returned} <= candidates"
                f" {slate.candidates} does not hold; lower shown or raise the others"
            )
        if self.items.count < slate.candidates:
            raise ConfigurationError(
                f"items.count {self.items.count} is less than slate.candidates"
                f" {slate.candidates}: a request could not be filled"
            )
        if self.actions.get("click", ActionSettings()).after != "examined":
            raise ConfigurationError('actions needs a "click" with after = "examined"')
        for name in ("late_s", "wrong_clock_s"):
            low, high = getattr(self.delivery, name)
            if low > high:
                raise ConfigurationError(f"delivery.{name}: {low} is more than {high}; swap them")


def _merged(base: Any, changes: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - plain JSON
    whole = dict(base)
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(whole.get(name), dict)
        whole[name] = _merged(whole[name], value) if both else value
    return whole


_PRESETS: dict[str, dict[str, Any]] = {
    "news": {
        # articles live for a day or two and are half as interesting after some hours
        "users": {"new_share": 0.5, "requests_a_session": 3.0, "drift": 0.3, "drift_h": 72.0},
        "items": {
            "count": 1_000,
            "new_a_day": 500.0,
            "life_h": 48.0,
            "half_life_h": 10.0,
            "categories": 16,
        },
        "clicks": {"rate": 0.04, "quality": 0.9, "taste": 0.9},
        "slate": {"candidates": 150},
        "actions": {"like": {"share": 0.04}},
    },
    "shop": {
        # few clicks, fewer purchases, and these hours later
        "users": {"requests_a_session": 6.0, "drift": 0.2, "drift_h": 500.0},
        "items": {"count": 10_000, "new_a_day": 40.0, "categories": 60, "tags": 500},
        "clicks": {
            "rate": 0.01,
            "mood": 2.0,
            "taste": 1.0,
            "position_bias": 0.7,
            "attribution_s": 86_400.0,
        },
        "slate": {"candidates": 300, "returned": 100, "shown": 20},
        "actions": {
            "like": {"share": 0.05},
            "buy": {
                "after": "click",
                "share": 0.05,
                "delay_s": 5_400.0,
                "sigma": 1.2,
                "priced": True,
            },
        },
    },
    "video": {
        # one film after the other: it is seen or skipped, and there is nothing below it
        "users": {"requests_a_session": 12.0, "drift": 0.6, "drift_h": 12.0, "gap_s": 40.0},
        "items": {"count": 5_000, "new_a_day": 800.0, "half_life_h": 72.0},
        "clicks": {"rate": 0.6, "taste": 1.5, "position_bias": 0.0},
        "slate": {"candidates": 200, "shown": 3},
        "actions": {
            "click": {"delay_s": 25.0, "sigma": 0.7},
            "like": {"share": 0.08},
            "hide": {"share": 0.02},
        },
    },
    "ads": {
        # one click in a thousand
        "items": {"count": 2_000, "new_a_day": 20.0},
        "clicks": {"rate": 0.001, "position_bias": 0.3},
        "slate": {"candidates": 100, "shown": 4},
    },
}
PRESETS = tuple(_PRESETS)


def preset_world(name: str) -> WorldSettings:
    """A world that comes with headrace.

    Raises:
        ConfigurationError: there is none of this name.

    >>> preset_world("news").clicks.rate
    0.04
    """
    if name not in _PRESETS:
        raise ConfigurationError(f"no world {name!r}; there are {', '.join(PRESETS)}")
    return WorldSettings().with_changes(_PRESETS[name])


def read_world(path: Path, base: WorldSettings) -> WorldSettings:
    """The settings in a TOML file, on top of others.

    Raises:
        ConfigurationError: the file is missing, is no TOML, or holds what cannot be.
    """
    try:
        changes = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"world file {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"world file {path}: {error}") from error
    try:
        return base.with_changes(changes)
    except ConfigurationError as error:
        raise ConfigurationError(f"world file {path}: {error}") from error


def changed_world(base: WorldSettings, changes: Sequence[str]) -> WorldSettings:
    """Settings with changes as a command line gives them; values are JSON, or else texts.

    Raises:
        ConfigurationError: one is not of the form, or cannot be.

    >>> changed_world(preset_world("news"), ["clicks.rate=0.2"]).clicks.rate
    0.2
    """
    for change in changes:
        path, equals, text = change.partition("=")
        if not equals:
            raise ConfigurationError(f"--with wants TABLE.NAME=VALUE, got {change!r}")
        try:
            value: Any = json.loads(text)
        except json.JSONDecodeError:
            value = text
        for part in reversed(path.split(".")):
            value = {part: value}
        base = base.with_changes(value)
    return base
