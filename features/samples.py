"""Typed records of the topics that the job writes: samples and feature rows.

``training.samples`` has three kinds of record: an impression when it was shown, with its features;
an action on it; and marks that give the time up to which the partition is complete. Nothing is
written for an impression without an action: it is a negative once the watermark has passed its
window.

The structs are derived from the declaration, so a field that the job does not write, or
writes as another type, is an error here and not a silent zero in a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any, cast

import msgspec

from features.declaration import Declaration, Entity
from settings.errors import EventError

# recent items travel as <13 digits of ms><item id>, so that text order is time order
STAMP_DIGITS = 13
# the job leaves out what is null, so the first field gives the kind of a record
_MARK_START = b'{"watermark":'
_ACTION_START = b'{"action_at":'


class Mark(msgspec.Struct, frozen=True):
    """Every record of this partition with ``at <= watermark`` (ms) comes before this one."""

    watermark: int


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """An impression, with the features as of the time at which it asked for them.

    The order of processing is (at, actions before shown, request_id, item_id, user_id, partition,
    offset).

    Attributes:
        shown_at: when it asked, ms: its own ``ts`` if it reached the broker in time, else its
            arrival. The features hold what was known strictly before.
        ts: time of the impression, ms; an action counts by its own time within
            ``log.attribution_ms`` from here.
        features: a struct with one attribute per streaming feature of the declaration.
        impression_at: (partition, offset) of the impression in its topic.
        context: what the application sent about the request; texts, numbers, booleans, and lists
            of texts by name.
    """

    shown_at: int
    request_id: str
    user_id: str
    item_id: str
    ts: int
    features: Any
    impression_at: tuple[int, int]
    position: int | None = None
    experiment: str | None = None
    variant: str | None = None
    model: str | None = None
    version: str | None = None
    score: float | None = None
    propensity: float | None = None
    context: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        # Flink's JSON has no column for an object of any fields, so it travels as its text
        given: object = self.context
        if isinstance(given, str):
            msgspec.structs.force_setattr(self, "context", msgspec.json.decode(given))

    @property
    def at(self) -> int:
        """When it takes effect, ms."""
        return self.shown_at


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """The first action of its kind on an impression.

    Attributes:
        action_at: when it takes effect, ms: a millisecond after it was known, and after its
            impression asked.
        ts: time of the impression, ms.
        action: its kind (``log.actions``).
        action_ts: its own time, ms; ts <= action_ts <= ts + ``log.attribution_ms``.
        label: 1 of a positive kind, 0 of a negative one.
        weight: of the label, from the kind.
        impression_at: (partition, offset) of the impression in its topic.
        click_at: (partition, offset) of the action in its topic.
        value: what the application gave with it.
    """

    action_at: int
    request_id: str
    user_id: str
    item_id: str
    ts: int
    action: str
    action_ts: int
    label: int
    weight: float
    impression_at: tuple[int, int]
    click_at: tuple[int, int]
    value: float | None = None

    @property
    def at(self) -> int:
        """When it takes effect, ms."""
        return self.action_at


class FeatureRow(msgspec.Struct, frozen=True, kw_only=True):
    """The streaming features of one user or item after the event that was known at ``ts`` (ms).

    ``id`` is the user's or item's id; the features are attributes named by the declaration.
    """

    id: str
    ts: int


class RecentItems(tuple[str, ...]):
    """Item ids, newest first; made of what the job writes by :func:`newest_first`."""

    __slots__ = ()


def newest_first(slots: Iterable[str | None]) -> list[str]:
    """Item ids of the filled slots, the newest first (equal times: the larger id first).

    >>> newest_first(["0000000000005b", None, "0000000000007a"])
    ['a', 'b']
    """
    return [s[STAMP_DIGITS:] for s in sorted(filter(None, slots), reverse=True)]


def _from_wire(kind: type, value: list[str | None]) -> RecentItems:
    if kind is RecentItems:
        return RecentItems(newest_first(value))
    raise NotImplementedError(kind)  # msgspec's own sign for "not a type of mine"


def _fields(declaration: Declaration, entities: Iterable[Entity]) -> list[tuple[str, type]]:
    wanted = set(entities)
    return [
        (f.name, RecentItems if f.aggregate == "recent_items" else f.python_type)
        for f in declaration.streaming
        if f.entity in wanted
    ]


@cache
def features_type(declaration: Declaration) -> type[msgspec.Struct]:
    """The struct of a sample's ``features``: one field per streaming feature, in order."""
    return msgspec.defstruct("Features", _fields(declaration, ("user", "item")), frozen=True)


@cache
def feature_row_type(declaration: Declaration, entity: Entity) -> type[FeatureRow]:
    """The struct of a row of ``features.user`` or ``features.item``."""
    made = msgspec.defstruct(
        f"{entity.title()}FeatureRow",
        [("id", str, msgspec.field(name=f"{entity}_id")), *_fields(declaration, (entity,))],
        bases=(FeatureRow,),
        frozen=True,
        kw_only=True,
    )
    return cast(type[FeatureRow], made)


def sample_decoder(declaration: Declaration) -> Callable[[bytes], Shown | Action | Mark]:
    """The decoder of values of ``training.samples``.

    It raises:
        EventError: a value that is none of the three for this declaration.
    """
    made = msgspec.defstruct(
        "DeclaredShown",
        [
            ("features", features_type(declaration)),
            ("context", dict[str, Any] | str | None, None),
        ],
        bases=(Shown,),
        frozen=True,
        kw_only=True,
    )
    shown = msgspec.json.Decoder(cast(type[Shown], made), dec_hook=_from_wire)
    actions = msgspec.json.Decoder(Action)
    marks = msgspec.json.Decoder(Mark)

    def decode(value: bytes) -> Shown | Action | Mark:
        try:
            if value.startswith(_MARK_START):
                return marks.decode(value)
            if value.startswith(_ACTION_START):
                return actions.decode(value)
            return shown.decode(value)
        except msgspec.MsgspecError as error:
            raise _foreign("training.samples", declaration, error) from error

    return decode


def feature_row_decoder(declaration: Declaration, entity: Entity) -> Callable[[bytes], FeatureRow]:
    """The decoder of values of ``features.user`` or ``features.item``.

    It raises:
        EventError: a value that is not a row of this declaration.
    """
    rows = msgspec.json.Decoder(feature_row_type(declaration, entity), dec_hook=_from_wire)

    def decode(value: bytes) -> FeatureRow:
        try:
            return rows.decode(value)
        except msgspec.MsgspecError as error:
            raise _foreign(f"features.{entity}", declaration, error) from error

    return decode


def _foreign(topic: str, declaration: Declaration, error: Exception) -> EventError:
    return EventError(
        f"a record of {topic} does not fit the declaration {declaration.name!r}: {error};"
        " it was written by a job of another declaration: headrace reset, then replay",
        reason="schema",
    )
