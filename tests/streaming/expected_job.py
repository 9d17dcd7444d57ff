"""What the job must make of any records, computed from its rules alone, without Flink."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any, NamedTuple

from features.declaration import RATE_UNIT, Declaration, Streaming
from settings.errors import EventError
from settings.settings import Settings
from streaming.events import Click, Impression, TimeMark, decode_event
from streaming.kafka import topics

Place = tuple[int, int]


class Arrived(NamedTuple):
    """A record of impressions or clicks, where it lies, and its record timestamp (ms)."""

    topic: str
    place: Place
    known: int
    value: bytes


@dataclass
class Expected:
    """By the place of the impression, of the action, and of the refused record."""

    shown: dict[Place, tuple[Any, ...]] = field(default_factory=dict)
    actions: dict[Place, tuple[Any, ...]] = field(default_factory=dict)
    letters: dict[tuple[str, Place], str] = field(default_factory=dict)
    features_only: int = 0


class _Shown(NamedTuple):
    at: int
    place: Place
    event: Impression


class _Acted(NamedTuple):
    at: int
    place: Place
    event: Click
    shown: _Shown
    kind: str


def expected_of(
    arrived: Iterable[Arrived], declaration: Declaration, settings: Settings
) -> Expected:
    """What becomes of each record."""
    found = Expected()
    impressions: list[_Shown] = []
    clicks: list[tuple[int, Place, Click]] = []
    slack = settings.flink.out_of_orderness_ms
    for record in arrived:
        kind: type[Any] = Impression if record.topic == topics.IMPRESSIONS else Click
        try:
            event = decode_event(
                kind,
                record.value,
                record_ms=record.known,
                max_ahead_ms=settings.flink.max_ahead_ms,
                max_late_ms=settings.flink.max_late_ms,
                actions=settings.log.actions,
            )
        except EventError as error:
            found.letters[record.topic, record.place] = error.reason
            continue
        if isinstance(event, Impression):
            on_time = record.known - slack <= event.ts <= record.known
            impressions.append(_Shown(event.ts if on_time else record.known, record.place, event))
        elif isinstance(event, Click):
            clicks.append((record.known, record.place, event))
        else:
            assert isinstance(event, TimeMark)
    shown = _first_ones(impressions, found)
    acted = _matched(clicks, shown, settings, found)
    _Features(declaration, shown, acted, settings.log.positives).fill(found)
    for one in acted:
        action = settings.log.actions[one.kind]
        if action.label is None:
            found.features_only += 1
            continue
        found.actions[one.place] = (
            one.at + 1,
            one.shown.event.request_id,
            one.event.user_id,
            one.event.item_id,
            one.shown.event.ts,
            one.kind,
            one.event.ts,
            action.label,
            action.weight,
            one.event.value,
            one.shown.place,
        )
    return found


def _first_ones(impressions: list[_Shown], found: Expected) -> list[_Shown]:
    known: set[tuple[str, str, str]] = set()
    first = []
    for one in sorted(impressions, key=lambda s: (s.at, s.place)):
        identity = (one.event.request_id, one.event.user_id, one.event.item_id)
        if identity in known:
            found.letters[topics.IMPRESSIONS, one.place] = "duplicate"
        else:
            known.add(identity)
            first.append(one)
    return first


def _matched(
    clicks: list[tuple[int, Place, Click]],
    shown: list[_Shown],
    settings: Settings,
    found: Expected,
) -> list[_Acted]:
    of_pair: dict[tuple[str, str], list[_Shown]] = defaultdict(list)
    for one in shown:
        of_pair[one.event.user_id, one.event.item_id].append(one)
    matched = []
    for known, place, event in clicks:
        fitting = [
            one
            for one in of_pair[event.user_id, event.item_id]
            if 0 <= event.ts - one.event.ts <= settings.log.attribution_ms
            and event.request_id in {None, one.event.request_id}
        ]
        if not fitting:
            found.letters[topics.CLICKS, place] = "unmatched"
            continue
        best = min(fitting, key=lambda s: (max(s.at, known), -s.event.ts, s.at, s.place))
        matched.append((max(best.at, known), known, place, event, best))
    taken: set[tuple[Place, str]] = set()
    acted = []
    for at, _, place, event, best in sorted(matched, key=lambda m: m[:3]):
        kind = event.action or "click"
        if (best.place, kind) in taken:
            found.letters[topics.CLICKS, place] = "repeated"
        else:
            taken.add((best.place, kind))
            acted.append(_Acted(at, place, event, best, kind))
    return acted


class _Features:
    """Features as of each ask, by looking through all that was known before."""

    def __init__(
        self,
        declaration: Declaration,
        shown: list[_Shown],
        acted: list[_Acted],
        positives: frozenset[str],
    ) -> None:
        self._declaration = declaration
        self._shown = shown
        # (user, item, when it counts, its time, kind)
        events = [(s.event.user_id, s.event.item_id, s.at, s.event.ts, "impression") for s in shown]
        events += [
            (a.event.user_id, a.event.item_id, a.at, a.event.ts, "click")
            for a in acted
            if a.kind in positives
        ]
        self._of: dict[tuple[str, str], list[tuple[str, int, int, str]]] = defaultdict(list)
        for user, item, at, ts, kind in events:
            for key in (("user", user), ("item", item)):
                self._of[key].append((item, at + 1, min(ts, at), kind))

    def fill(self, found: Expected) -> None:
        for one in self._shown:
            values = tuple(
                self._value(
                    f, one.event.user_id if f.entity == "user" else one.event.item_id, one.at
                )
                for f in self._declaration.streaming
            )
            event = one.event
            found.shown[one.place] = (
                one.at,
                event.request_id,
                event.user_id,
                event.item_id,
                event.ts,
                event.position,
                event.experiment,
                event.variant,
                event.model,
                event.version,
                event.score,
                event.propensity,
                event.context,
                values,
            )

    def _value(self, feature: Streaming, whose: str, at: int) -> Any:
        start = 0 if feature.window_ms is None else at - feature.window_ms
        events = [
            (item, counts, ts)
            for item, counts, ts, kind in self._of[feature.entity, whose]
            if start <= counts <= at and kind == feature.source
        ]
        match feature.aggregate:
            case "count":
                return len(events)
            case "first_ts":
                return min((ts for *_, ts in events), default=0)
            case "last_ts":
                return max((ts for *_, ts in events), default=0)
            case "sum_rate":
                return self._sum_rate(feature, events) / RATE_UNIT
            case "recent_items":
                newest: dict[str, tuple[str, str]] = {}
                for item, _, ts in events:
                    slot = md5(item.encode(), usedforsecurity=False).hexdigest()[0]
                    newest[slot] = max(newest.get(slot, ("", "")), (f"{ts:013d}", item))
                return tuple(item for _, item in sorted(newest.values(), reverse=True))

    def _sum_rate(self, feature: Streaming, events: list[tuple[str, int, int]]) -> int:
        rate = feature.rate
        assert rate is not None
        total = 0
        for item, counts, _ in events:
            clicks = self._value(self._declaration.feature(rate.clicks), item, counts)
            shown = self._value(self._declaration.feature(rate.impressions), item, counts)
            total += (clicks * RATE_UNIT + rate.prior_units) // (shown + rate.strength)
        return total
