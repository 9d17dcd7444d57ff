"""Typed records of the topics that the job writes: samples with marks, and feature rows.

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
# the job writes `frontier` first and leaves out what is null
_MARK_START = b'{"frontier":'


class Mark(msgspec.Struct, frozen=True):
    """Every sample of this partition with ``closed_ts <= frontier`` lies before this record."""

    frontier: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """An impression with its outcome, and the features as of the impression.

    Attributes:
        ts: time of the impression, ms.
        closed_ts: when the outcome was known, ms of event time; the trainer's order is
            (closed_ts, request_id, item_id).
        features: a struct with one attribute per streaming feature of the declaration.
        impression_at: (partition, offset) of the impression in its topic.
        click_at: the same of the click; None for a negative.
    """

    request_id: str
    user_id: str
    item_id: str
    ts: int
    closed_ts: int
    label: int
    weight: float
    features: Any
    impression_at: tuple[int, int]
    click_at: tuple[int, int] | None = None
    experiment: str | None = None
    variant: str | None = None
    model: str | None = None
    version: str | None = None
    score: float | None = None
    propensity: float | None = None
    position: int | None = None


class FeatureRow(msgspec.Struct, frozen=True, kw_only=True):
    """The streaming features of one user or item after its event at ``ts`` (ms).

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


def sample_decoder(declaration: Declaration) -> Callable[[bytes], Sample | Mark]:
    """The decoder of values of ``training.samples``.

    It raises:
        EventError: a value that is neither a mark nor a sample of this declaration.
    """
    made = msgspec.defstruct(
        "DeclaredSample",
        [("features", features_type(declaration))],
        bases=(Sample,),
        frozen=True,
        kw_only=True,
    )
    samples = msgspec.json.Decoder(cast(type[Sample], made), dec_hook=_from_wire)
    marks = msgspec.json.Decoder(Mark)

    def decode(value: bytes) -> Sample | Mark:
        try:
            if value.startswith(_MARK_START):
                return marks.decode(value)
            return samples.decode(value)
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
