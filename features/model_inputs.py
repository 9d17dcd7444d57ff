"""From raw features to what a model reads: one vectorised function, for trainer and server alike.

Streaming features travel as raw counts, sums and times (:mod:`features.declaration`). Here they
become numbers: ``log1p`` of counts and time gaps, smoothed logits and residuals, cold flags. A
batch of rows and each of its rows alone give the same bits, so that the server reads what the
trainer learnt on. Centring, scaling and clipping (z-score) belong to the model: their statistics
are fitted in its warm-up and saved with it.

No number of an item depends on the time of the request. An item's vector is made when it is
published and used later, at a time that it cannot know.

A row of the online store is as of the user's last event, so the windows in it end there. A window
that has passed since is read as empty: the same as what the job would put into a sample. What has
left a window since, while something is still in it, is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.conversions import MOST_GRAMS, Converted, from_context
from features.declaration import (
    RECENT_SLOTS,
    ContextInput,
    Declaration,
    Dense,
    Entity,
    Static,
    Streaming,
    Transform,
)
from inttower.core.spec import FeatureSpec, Field
from settings.errors import ConfigurationError

Columns = dict[str, Sequence[str] | Sequence[Sequence[str]] | NDArray[np.float32]]
Values = tuple[Any, ...]
# of the requests of some rows, one a row
Contexts = Sequence[Mapping[str, Any] | None] | None

# how many impressions the base rate is worth in a smoothed mean
STRENGTH = 5.0

_Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RawRows:
    """Raw features of users or of items.

    Attributes:
        ids: of the rows.
        values: each row's streaming features, in the order of ``declaration.of_entity(entity)``;
            recent items newest first.
    """

    ids: Sequence[str]
    values: Sequence[Values]

    @classmethod
    def of(
        cls,
        declaration: Declaration,
        entity: Entity,
        ids: Sequence[str],
        structs: Iterable[object | None],
    ) -> RawRows:
        """Rows out of ``sample.features`` or feature rows; None: never seen, all zero."""
        values_of, blank = getter(declaration, entity), never_seen(declaration, entity)
        return cls(ids, [blank if s is None else values_of(s) for s in structs])


@cache
def getter(declaration: Declaration, entity: Entity) -> Callable[[object], Values]:
    """What takes an entity's values, in order, out of a sample's features or a feature row."""
    names = [f.name for f in declaration.of_entity(entity)]
    if len(names) == 1:  # attrgetter of one name gives the bare value
        return lambda struct: (getattr(struct, names[0]),)
    return attrgetter(*names)


@cache
def never_seen(declaration: Declaration, entity: Entity) -> Values:
    """The values of a user or item without any event."""
    return tuple(
        () if f.aggregate == "recent_items" else f.python_type()
        for f in declaration.of_entity(entity)
    )


@cache
def model_spec(declaration: Declaration) -> FeatureSpec:
    """The model's fields: the id, statics, recent items and numbers of each side.

    >>> from features.logs.movielens_features import MOVIELENS
    >>> [f.name for f in model_spec(MOVIELENS).of_side("item", "sparse", "multi")]
    ['item_id', 'genres', 'decade']
    """
    sides: tuple[Entity, ...] = ("user", "item")
    return FeatureSpec(tuple(f for side in sides for f in _fields(declaration, side)))


def _fields(declaration: Declaration, side: Entity) -> list[Field]:
    fields = [Field(f"{side}_id", side, "sparse", is_id=True)]
    fields += [_static_field(f, side) for f in declaration.statics_of(side)]
    if side == "user":
        fields += [_static_field(f, side) for f in declaration.contexts]
    fields += [
        Field(f.name, side, "sequence", of="item_id", max_length=RECENT_SLOTS)
        for f in declaration.of_entity(side)
        if f.aggregate == "recent_items"
    ]
    return fields + [Field(d.name, side, "dense") for d in declaration.dense_of(side)]


def _static_field(field: Static | ContextInput, side: Entity) -> Field:
    width = field.width if isinstance(field, Static) else 1
    if field.convert == "ngrams":
        return Field(field.name, side, field.kind, max_length=MOST_GRAMS)
    return Field(field.name, side, field.kind, width=width)


def user_columns(
    declaration: Declaration,
    raw: RawRows,
    catalogue: Catalogue,
    now_ms: NDArray[np.int64],
    contexts: Contexts = None,
) -> Columns:
    """The user side's input.

    Args:
        declaration: of the log.
        raw: B rows.
        catalogue: the static fields; one that keeps a history gives them as of ``now_ms``.
        now_ms: [B], time of each row's impression or request, ms.
        contexts: of each row's request, B entries (None: unknown), or None for all of them.

    Returns:
        One entry a field: sparse: B texts (``""``: not known); multi and sequence: B sequences of
        texts; dense: float32 [B], or [B, width].
    """
    columns = static_columns(declaration, "user", raw.ids, catalogue, now_ms)
    asked = contexts if contexts is not None else [None] * len(raw.ids)
    for field in declaration.contexts:
        columns[field.name] = _column(field, [from_context(field, one) for one in asked])
    return _columns(declaration, "user", raw, columns, now_ms.astype(np.float64))


def item_columns(
    declaration: Declaration,
    raw: RawRows,
    catalogue: Catalogue,
    at_ms: NDArray[np.int64] | None = None,
) -> Columns:
    """The item side's input, see :func:`user_columns`; its numbers know no time of request.

    Args:
        declaration: of the log.
        raw: B rows.
        catalogue: the static fields.
        at_ms: [B], as of which time (ms) the static fields are taken; None: the newest.
    """
    columns = static_columns(declaration, "item", raw.ids, catalogue, at_ms)
    return _columns(declaration, "item", raw, columns, None)


def static_columns(
    declaration: Declaration,
    side: Entity,
    ids: Sequence[str],
    catalogue: Catalogue,
    at_ms: NDArray[np.int64] | None = None,
) -> Columns:
    """The ids and static fields alone of users or items, as of a time or the newest."""
    plan = _plan(declaration, side)
    statics = catalogue.rows(side, ids, None if at_ms is None else at_ms.tolist())
    return {
        plan.id_name: ids,
        **{f.name: _column(f, [row[at] for row in statics]) for at, f in enumerate(plan.statics)},
    }


def _column(
    field: Static | ContextInput, values: list[Converted]
) -> Sequence[str] | Sequence[Sequence[str]] | NDArray[np.float32]:
    if field.kind != "dense":
        return cast(Sequence[str], values)
    width = field.width if isinstance(field, Static) else 1
    shape = (len(values), width) if width > 1 else (len(values),)
    return np.array(values, np.float32).reshape(shape)


def _columns(
    declaration: Declaration,
    side: Entity,
    raw: RawRows,
    columns: Columns,
    now_ms: _Array | None,
) -> Columns:
    """The columns, with those that come from the raw features."""
    plan = _plan(declaration, side)
    for at, name in plan.sequences:
        columns[name] = [row[at] for row in raw.values]
    numbers = {
        name: np.array([row[at] for row in raw.values], np.float64) for at, name in plan.numbers
    }
    for window in plan.windows:
        if now_ms is None:
            raise ConfigurationError(f"window {window.feature!r}: items do not know the time")
        # the job's window holds both its ends, and an event counts a millisecond after itself
        passed = now_ms - numbers[window.last_ts] > window.length_ms + 1
        numbers[window.feature] = np.where(passed, 0.0, numbers[window.feature])
    for dense in plan.dense:
        arguments = [numbers[name] for name in dense.of]
        column = _TRANSFORMS[dense.transform](arguments, declaration.base_rate, now_ms)
        columns[dense.name] = column.astype(np.float32)
    return columns


@dataclass(frozen=True, slots=True)
class _Window:
    """A windowed feature, and the one that tells when its last event was."""

    feature: str
    last_ts: str
    length_ms: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """The place of each input in a row of values."""

    id_name: str
    statics: tuple[Static, ...]
    sequences: tuple[tuple[int, str], ...]
    numbers: tuple[tuple[int, str], ...]
    windows: tuple[_Window, ...]
    dense: tuple[Dense, ...]


@cache
def _plan(declaration: Declaration, side: Entity) -> _Plan:
    dense = declaration.dense_of(side)
    for one in dense:
        if side == "item" and one.transform == "log_gap":
            raise ConfigurationError(
                f"input {one.name!r}: a published item vector cannot know the time of the request;"
                " take log_gap off items"
            )
    needed = {name for one in dense for name in one.of}
    windows = [_window(declaration, declaration.feature(name)) for name in sorted(needed)]
    needed |= {window.last_ts for window in windows if window}
    streaming = list(enumerate(declaration.of_entity(side)))
    for _, feature in streaming:
        if feature.aggregate == "recent_items" and feature.window_ms is not None:
            raise ConfigurationError(
                f"feature {feature.name!r}: recent items have no window, for a server could not"
                " tell which of them have left it; take window_ms off"
            )
    return _Plan(
        id_name=f"{side}_id",
        statics=declaration.statics_of(side),
        sequences=tuple((at, f.name) for at, f in streaming if f.aggregate == "recent_items"),
        numbers=tuple((at, f.name) for at, f in streaming if f.name in needed),
        windows=tuple(window for window in windows if window),
        dense=dense,
    )


def _window(declaration: Declaration, feature: Streaming) -> _Window | None:
    if feature.window_ms is None:
        return None
    if feature.entity == "item":
        raise ConfigurationError(
            f"feature {feature.name!r}: a published item vector cannot know when a window has"
            " passed; feed windows of users to the towers only"
        )
    for other in declaration.of_entity(feature.entity):
        its_last = other.aggregate == "last_ts" and other.window_ms is None
        if its_last and other.source == feature.source:
            return _Window(feature.name, other.name, feature.window_ms)
    raise ConfigurationError(
        f"feature {feature.name!r} has a window: declare the last_ts of the same {feature.source}s"
        " too, which tells a server when the window has passed"
    )


def _log_count(of: list[_Array], rate: float, now: _Array | None) -> _Array:
    return np.log1p(of[0])


def _cold(of: list[_Array], rate: float, now: _Array | None) -> _Array:
    return np.where(of[0] == 0, 1.0, 0.0)


def _logit_rate(of: list[_Array], rate: float, now: _Array | None) -> _Array:
    clicks, shown = of
    # a click whose impression came too late to count would make this negative
    missed = np.maximum(shown - clicks, 0.0)
    odds: _Array = (clicks + STRENGTH * rate) / (missed + STRENGTH * (1.0 - rate))
    return np.log(odds)


def _residual(of: list[_Array], rate: float, now: _Array | None) -> _Array:
    clicks, expected, shown = of
    return (clicks - expected) / (shown + STRENGTH)


def _log_gap(of: list[_Array], rate: float, now: _Array | None) -> _Array:
    if now is None:
        raise ConfigurationError("log_gap needs the time of the request, which items do not have")
    # a row may be newer than the request by the clocks of two machines
    seconds = np.maximum(now - of[0], 0.0) / 1000.0
    return np.where(of[0] > 0, np.log1p(seconds), 0.0)


_TRANSFORMS: Mapping[Transform, Callable[[list[_Array], float, _Array | None], _Array]] = {
    "log_count": _log_count,
    "cold": _cold,
    "logit_rate": _logit_rate,
    "residual": _residual,
    "log_gap": _log_gap,
}
