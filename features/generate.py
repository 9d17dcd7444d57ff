"""The features of a log, generated from what the log has.

One set for every log: counts, rates and times of users and items, what a user liked last, a session
window where users come in sessions, and every declared attribute and context field. What is chosen
from the data (the base rate, the edges of buckets, the session window) is chosen by rules that know
no log. ``[features]`` of the log's TOML removes and adds.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from features.declaration import (
    ContextInput,
    Conversion,
    Declaration,
    Dense,
    Entity,
    SmoothedRate,
    Static,
    Streaming,
    Transform,
)
from settings.errors import ConfigurationError
from streaming.events import Entity as EntityRecord
from streaming.events import Impression
from streaming.logs import OwnLog
from streaming.logs.log_file import CLICK, AttributeColumn, FeatureLine, duration_ms

_Input = TypeVar("_Input", Static, ContextInput)

# events at the beginning of the log that are looked at
_LOOKED_AT = 200_000
_MAX_BUCKETS = 16
# of so few different values each is a bucket
_FEW_VALUES = 2 * _MAX_BUCKETS
# a number that spreads this much, from its median to its 99th percentile, is read as its logarithm
_SKEWED = 10.0
# clicks (or non-clicks, if these are rarer) that the prior of an item's rate is worth
_PRIOR_EVENTS = 2.5
# web analytics end a session after half an hour without an event
_SESSION_GAP_MS = 30 * 60_000
_SESSION_SHARE = 0.2
_SESSIONS_MS = (60_000, 600_000, 1_800_000)


@dataclass(frozen=True, slots=True)
class LogFacts:
    """What of a log's beginning decides its features.

    Attributes:
        base_rate: clicks an impression.
        session_ms: the window of a session; None: users do not come in sessions.
        numbers: values of each context field that is a number.
    """

    base_rate: float
    session_ms: int | None
    numbers: dict[str, Sequence[float]]


def look_at(log: OwnLog) -> LogFacts:
    """Look at the first events of a log."""
    summary, positives = log.summary, log.positives
    shown = clicked = 0
    last: dict[str, int] = {}
    gaps: list[int] = []
    wanted = [name for name, kind in summary.contexts.items() if kind == "number"]
    numbers: dict[str, list[float]] = {name: [] for name in wanted}
    for event in itertools.islice(log.events(), _LOOKED_AT):
        if not isinstance(event, Impression):
            clicked += (event.action or CLICK) in positives
            continue
        shown += 1
        if event.user_id in last and event.ts > last[event.user_id]:
            gaps.append(event.ts - last[event.user_id])
        last[event.user_id] = event.ts
        for name in wanted:
            if (value := (event.context or {}).get(name)) is not None:
                numbers[name].append(value)
    rate = clicked / max(shown, 1)
    # a log of one label has no rate to centre on
    return LogFacts(min(max(rate, 0.001), 0.999), _session(gaps), dict(numbers))


def _session(gaps: list[int]) -> int | None:
    """A window that holds most of a session's gaps, if enough of the gaps lie in sessions."""
    short = [gap for gap in gaps if gap <= _SESSION_GAP_MS]
    if not gaps or len(short) < _SESSION_SHARE * len(gaps):
        return None
    # a window of some ten typical gaps, of three lengths so that a log's beginning decides little
    typical = 10 * float(np.median(short))
    return next((window for window in _SESSIONS_MS if window >= typical), _SESSIONS_MS[-1])


def generated_declaration(log: OwnLog) -> Declaration:
    """The features of a log.

    Raises:
        ConfigurationError: ``[features]`` of its TOML names what is not there.
        LogFileError: a catalogue is broken.
    """
    facts = look_at(log)
    user, item = _streaming(facts)
    users, items = log.declared.users, log.declared.items
    statics = _statics("user", users.fields if users else {}, log.users())
    statics += _statics("item", items.fields if items else {}, log.items())
    contexts = _contexts(log, facts)
    dense = _dense(facts)
    for name, line in log.declared.features.add.items():
        feature, number = _added(name, line)
        (user if line.of == "user" else item).append(feature)
        dense.append(number)
    streaming = [*user, *item]
    streaming += _needed(streaming)
    names = [*(f.name for f in streaming), *(d.name for d in dense), "user_id", "item_id"]
    made = Declaration(
        name=log.name.replace("-", "_").replace(".", "_"),
        streaming=tuple(streaming),
        statics=tuple(_renamed(statics, names)),
        dense=tuple(dense),
        base_rate=float(f"{facts.base_rate:.3g}"),
        contexts=tuple(_renamed(contexts, names)),
    )
    return _without(made, log.declared.features.remove)


def _streaming(facts: LogFacts) -> tuple[list[Streaming], list[Streaming]]:
    rarer = min(facts.base_rate, 1 - facts.base_rate)
    strength = int(min(max(round(_PRIOR_EVENTS / rarer), 5), 200))
    rate = SmoothedRate(
        "item_clicks", "item_impressions", float(f"{facts.base_rate:.3g}"), strength
    )
    user = [
        Streaming("user_impressions", "user", "impression", "count"),
        Streaming("user_clicks", "user", "click", "count"),
        Streaming("user_expected", "user", "impression", "sum_rate", rate=rate),
        Streaming("user_first_ts", "user", "impression", "first_ts"),
        Streaming("user_last_ts", "user", "impression", "last_ts"),
        Streaming("user_last_click_ts", "user", "click", "last_ts"),
        Streaming("user_clicked", "user", "click", "recent_items"),
    ]
    if facts.session_ms is not None:
        for source in ("impression", "click"):
            name = f"user_session_{source}s"
            user.append(Streaming(name, "user", source, "count", facts.session_ms))
    item = [
        Streaming("item_impressions", "item", "impression", "count"),
        Streaming("item_clicks", "item", "click", "count"),
        # for people: a published item vector cannot know the gap at the time of a request
        Streaming("item_last_ts", "item", "impression", "last_ts"),
    ]
    return user, item


def _dense(facts: LogFacts) -> list[Dense]:
    dense = [
        Dense("user_log_impressions", "log_count", ("user_impressions",)),
        Dense("user_log_clicks", "log_count", ("user_clicks",)),
        Dense("user_logit", "logit_rate", ("user_clicks", "user_impressions")),
        Dense("user_residual", "residual", ("user_clicks", "user_expected", "user_impressions")),
        Dense("user_gap", "log_gap", ("user_last_ts",)),
        Dense("user_click_gap", "log_gap", ("user_last_click_ts",)),
        Dense("user_age", "log_gap", ("user_first_ts",)),
        Dense("user_cold", "cold", ("user_impressions",)),
    ]
    if facts.session_ms is not None:
        session = ("user_session_clicks", "user_session_impressions")
        dense.append(Dense("user_session_log_impressions", "log_count", session[1:]))
        dense.append(Dense("user_session_logit", "logit_rate", session))
    return [
        *dense,
        Dense("item_log_impressions", "log_count", ("item_impressions",)),
        Dense("item_log_clicks", "log_count", ("item_clicks",)),
        Dense("item_logit", "logit_rate", ("item_clicks", "item_impressions")),
        Dense("item_cold", "cold", ("item_impressions",)),
    ]


def _added(name: str, line: FeatureLine) -> tuple[Streaming, Dense]:
    window = duration_ms(line.window) if line.window else None
    if line.what == "rate":
        # counts the clicks; _needed adds the impressions
        feature = Streaming(f"{name}_clicks", line.of, "click", "count", window)
        return feature, Dense(name, "logit_rate", (feature.name, f"{name}_impressions"))
    aggregate = {"count": "count", "first": "first_ts", "last": "last_ts"}[line.what]
    feature = Streaming(f"{name}_raw", line.of, line.events, aggregate, window)  # type: ignore[arg-type]
    transform: Transform = "log_count" if line.what == "count" else "log_gap"
    return feature, Dense(name, transform, (feature.name,))


def _needed(streaming: list[Streaming]) -> list[Streaming]:
    """The impressions that an added rate is of."""
    there = {f.name for f in streaming}
    return [
        replace(f, name=name, source="impression")
        for f in streaming
        if f.name.endswith("_clicks")
        and f.source == "click"
        and (name := f"{f.name.removesuffix('_clicks')}_impressions") not in there
    ]


def _statics(
    side: Entity, fields: dict[str, AttributeColumn], entities: Iterable[EntityRecord]
) -> list[Static]:
    numeric = [n for n, f in fields.items() if f.kind in {"number", "vector"}]
    values: dict[str, list[float]] = {name: [] for name in numeric}
    widths: dict[str, int] = {}
    for entity in entities if numeric else ():
        for name in numeric:
            value = entity.attributes.get(name)
            if isinstance(value, int | float):
                values[name].append(float(value))
            elif value is not None:
                widths.setdefault(name, len(value))
    found: list[Static] = []
    for name, field in fields.items():
        if field.kind == "category":
            found.append(Static(name, side, "sparse"))
        elif field.kind == "set":
            found.append(Static(name, side, "multi"))
        elif field.kind == "text":
            found.append(Static(name, side, "multi", convert="ngrams"))
        elif field.kind == "vector" and name in widths:
            found.append(Static(name, side, "dense", convert="vector", width=widths[name]))
        elif field.kind == "number" and (scale := _scale(values[name])):
            found.append(Static(name, side, "sparse", convert="bucket", edges=scale.edges))
            found.append(
                Static(f"{name}_number", side, "dense", name, scale.convert, missing=scale.missing)
            )
    return found


def _contexts(log: OwnLog, facts: LogFacts) -> list[ContextInput]:
    found: list[ContextInput] = []
    for name, kind in log.summary.contexts.items():
        if kind == "number":
            if scale := _scale(facts.numbers[name]):
                found.append(ContextInput(name, "sparse", convert="bucket", edges=scale.edges))
                found.append(
                    ContextInput(
                        f"{name}_number", "dense", name, scale.convert, missing=scale.missing
                    )
                )
        else:
            found.append(ContextInput(name, "multi" if kind == "set" else "sparse"))
    return found


@dataclass(frozen=True, slots=True)
class _Scale:
    """How a number is read."""

    edges: tuple[float, ...]
    convert: Conversion
    missing: float


def _scale(values: Sequence[float]) -> _Scale | None:
    """Buckets of equal shares, and the logarithm where the number is skewed; None: no values."""
    if not len(values):
        return None
    numbers = np.array(values, np.float64)
    different = np.unique(numbers)
    edges = different[1:]
    if len(different) > _FEW_VALUES:
        edges = np.unique(np.quantile(numbers, np.linspace(0, 1, _MAX_BUCKETS + 1)[1:-1]))
    middle, high = float(np.median(numbers)), float(np.quantile(numbers, 0.99))
    skewed = len(different) > _FEW_VALUES and high > _SKEWED * max(abs(middle), 1e-9)
    return _Scale(tuple(edges.tolist()), "log" if skewed else "number", middle)


def _renamed(fields: list[_Input], taken: list[str]) -> list[_Input]:
    """Fields under names that a feature may have, and that nothing else has."""
    found = []
    for field in fields:
        plain = "".join(c if c.isascii() and c.isalnum() else "_" for c in field.name.lower())
        plain = plain if plain[:1].isalpha() else f"f_{plain}"
        name = next(n for n in _variants(plain) if n not in taken)
        taken.append(name)
        found.append(
            replace(field, name=name, attribute=field.source if name != field.source else "")
        )
    return found


def _variants(name: str) -> Iterable[str]:
    yield name
    yield from (f"{name}_{number}" for number in itertools.count(2))


def _without(declaration: Declaration, names: Sequence[str]) -> Declaration:
    """The declaration less some features, and less what is made of them."""
    every = [f.name for f in declaration.streaming]
    every += [f.name for f in declaration.statics]
    every += [f.name for f in declaration.dense]
    every += [f.name for f in declaration.contexts]
    for name in names:
        if name not in every:
            raise ConfigurationError(
                f"features.remove: there is no feature {name!r}; there are {', '.join(every)}"
            )
    gone = set(names)
    streaming = tuple(f for f in declaration.streaming if f.name not in gone)
    gone |= {
        f.name
        for f in streaming
        if f.rate is not None and gone & {f.rate.clicks, f.rate.impressions}
    }
    return replace(
        declaration,
        streaming=tuple(f for f in streaming if f.name not in gone),
        statics=tuple(f for f in declaration.statics if f.name not in gone),
        dense=tuple(f for f in declaration.dense if f.name not in gone and not gone & set(f.of)),
        contexts=tuple(f for f in declaration.contexts if f.name not in gone),
    )
