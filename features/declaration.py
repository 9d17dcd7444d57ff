"""How a log declares its features, once.

From one :class:`Declaration` come the job's SQL (:mod:`features.sql`), the Feast views, the
struct of a training sample (:mod:`features.samples`) and the model's inputs. Raw counts, sums
and times travel; :class:`Dense` says how each becomes a number that a model reads.

A streaming feature of an impression at ``ts`` holds what was known strictly before ``ts``: an
event counts one millisecond after its own time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from settings.errors import ConfigurationError

Entity = Literal["user", "item"]
Source = Literal["impression", "click"]
Aggregate = Literal["count", "first_ts", "last_ts", "sum_rate", "recent_items"]
Conversion = Literal["as_is", "bucket", "number", "log", "ngrams", "vector"]
Transform = Literal["log_count", "cold", "logit_rate", "residual", "log_gap"]

ENTITIES: tuple[Entity, ...] = ("user", "item")
# recent_items keeps one item a hash slot, and a slot is a hexadecimal digit of the item's MD5
RECENT_SLOTS = 16
# rates are added up as whole millionths: sums of integers do not depend on their order
RATE_UNIT = 1_000_000

_NAME = re.compile(r"[a-z][a-z0-9_]*")
# how many features each transform reads
_READS: dict[Transform, int] = {
    "log_count": 1,
    "cold": 1,
    "logit_rate": 2,
    "residual": 3,
    "log_gap": 1,
}


@dataclass(frozen=True, slots=True)
class SmoothedRate:
    """A smoothed click rate of the item: (clicks + prior · strength) / (impressions + strength).

    Args:
        clicks: name of the item's count of clicks.
        impressions: name of the item's count of impressions.
        prior: the rate of an item that was never shown.
        strength: how many impressions the prior is worth.
    """

    clicks: str
    impressions: str
    prior: float
    strength: int

    @property
    def prior_units(self) -> int:
        """The prior's share of the numerator, in millionths."""
        return round(self.prior * self.strength * RATE_UNIT)


@dataclass(frozen=True, slots=True)
class Streaming:
    """A feature that the job keeps up to date.

    Args:
        name: unique in its declaration; also the name of the column everywhere.
        entity: whose feature it is.
        source: the events that count.
        aggregate: ``count`` of events; ``first_ts`` / ``last_ts``, their smallest and largest
            time in ms (0: none yet); ``sum_rate``, the sum of ``rate`` of the shown items as it
            stood one millisecond after each impression (what the user would have clicked if
            only the items mattered); ``recent_items``, the newest item of each of 16 hash
            slots (bounded, and the same for any order of arrival).
        window_ms: only events of the last so many ms; None: all.
        rate: what ``sum_rate`` adds up.
    """

    name: str
    entity: Entity
    source: Source
    aggregate: Aggregate
    window_ms: int | None = None
    rate: SmoothedRate | None = None

    @property
    def python_type(self) -> type[int] | type[float] | type[list[str]]:
        """What a decoded sample holds under this name."""
        if self.aggregate == "sum_rate":
            return float
        if self.aggregate == "recent_items":
            return list[str]
        return int


@dataclass(frozen=True, slots=True)
class Static:
    """An attribute of a user or an item, from the compacted topics ``users`` and ``items``.

    Args:
        name: of the model's input.
        entity: whose it is.
        kind: of the input: one text, several, or numbers.
        attribute: its name on the topic; empty: the same as ``name``.
        convert: how the attribute becomes the input: ``as_is``; ``bucket`` a number's place between
            ``edges``; ``number`` or ``log`` (sign · log1p) of a number; ``ngrams`` hashed words and
            pairs of words of a text; ``vector`` a list of ``width`` numbers.
        edges: rising; the first value of each bucket but the lowest.
        width: numbers of a dense input.
        missing: what an unknown number is taken for.
    """

    name: str
    entity: Entity
    kind: Literal["sparse", "multi", "dense"]
    attribute: str = ""
    convert: Conversion = "as_is"
    edges: tuple[float, ...] = ()
    width: int = 1
    missing: float = 0.0

    @property
    def source(self) -> str:
        """The attribute's name on the topic."""
        return self.attribute or self.name


@dataclass(frozen=True, slots=True)
class ContextInput:
    """A field of the request's context that the user tower reads; see :class:`Static`."""

    name: str
    kind: Literal["sparse", "multi", "dense"]
    attribute: str = ""
    convert: Conversion = "as_is"
    edges: tuple[float, ...] = ()
    missing: float = 0.0

    @property
    def source(self) -> str:
        """The field's name in the context."""
        return self.attribute or self.name


@dataclass(frozen=True, slots=True)
class Dense:
    """One number for a tower, made of raw streaming features of the same entity.

    Args:
        name: of the model's input.
        transform: ``log_count`` log1p of a count; ``cold`` 1 while a count is 0;
            ``logit_rate`` smoothed logit of (clicks, impressions); ``residual`` smoothed mean
            of clicks minus expected clicks of (clicks, expected, impressions); ``log_gap``
            log1p of the seconds since a time (0: never).
        of: names of the features it reads, in the order above.
    """

    name: str
    transform: Transform
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Declaration:
    """All features of one log.

    Args:
        name: of the log, in lower case.
        streaming: in the order of their columns everywhere.
        statics: attributes that travel apart from the samples.
        dense: numbers for the towers; a tower gets those made of its entity's features.
        base_rate: clicks an impression, roughly: the centre of smoothed rates.
        contexts: fields of the request's context that the user tower reads.
    """

    name: str
    streaming: tuple[Streaming, ...]
    statics: tuple[Static, ...]
    dense: tuple[Dense, ...]
    base_rate: float
    contexts: tuple[ContextInput, ...] = ()

    def __post_init__(self) -> None:
        names = [f.name for f in self.streaming]
        names += [f.name for f in self.statics]
        names += [f.name for f in self.dense]
        names += [f.name for f in self.contexts]
        for name in names:
            if not _NAME.fullmatch(name):
                raise ConfigurationError(
                    f"declaration {self.name!r}: {name!r} is not a name of lower-case letters,"
                    " digits and underscores; rename it"
                )
            if names.count(name) > 1:
                raise ConfigurationError(
                    f"declaration {self.name!r}: {name!r} is used twice; names must be unique"
                )
        for feature in self.streaming:
            self._check_streaming(feature)
        for dense in self.dense:
            self._check_dense(dense)

    def _check_streaming(self, feature: Streaming) -> None:
        if (feature.aggregate == "sum_rate") != (feature.rate is not None):
            raise ConfigurationError(f"feature {feature.name!r}: 'rate' belongs to sum_rate alone")
        if feature.aggregate in {"sum_rate", "recent_items"} and feature.entity != "user":
            raise ConfigurationError(f"feature {feature.name!r}: {feature.aggregate} is of a user")
        if feature.rate is not None:
            if feature.source != "impression":
                raise ConfigurationError(f"feature {feature.name!r}: rates are of impressions")
            for name in (feature.rate.clicks, feature.rate.impressions):
                counted = self.feature(name)
                if counted.entity != "item" or counted.aggregate != "count":
                    raise ConfigurationError(
                        f"feature {feature.name!r}: {name!r} must be a count of the item"
                    )
        if feature.window_ms is not None and feature.window_ms < 1:
            raise ConfigurationError(f"feature {feature.name!r}: window_ms must be at least 1")

    def _check_dense(self, dense: Dense) -> None:
        if len(dense.of) != _READS[dense.transform]:
            raise ConfigurationError(
                f"input {dense.name!r}: {dense.transform} reads {_READS[dense.transform]}"
                f" features, {len(dense.of)} are given"
            )
        if len({self.feature(name).entity for name in dense.of}) > 1:
            raise ConfigurationError(f"input {dense.name!r} mixes features of users and items")

    def feature(self, name: str) -> Streaming:
        """The streaming feature of that name."""
        for feature in self.streaming:
            if feature.name == name:
                return feature
        raise ConfigurationError(
            f"declaration {self.name!r} has no streaming feature {name!r};"
            f" there are {', '.join(f.name for f in self.streaming)}"
        )

    def of_entity(self, entity: Entity) -> tuple[Streaming, ...]:
        """The streaming features of users or of items, in order."""
        return tuple(f for f in self.streaming if f.entity == entity)

    def statics_of(self, entity: Entity) -> tuple[Static, ...]:
        """The static fields of users or of items, in order."""
        return tuple(f for f in self.statics if f.entity == entity)

    def dense_of(self, entity: Entity) -> tuple[Dense, ...]:
        """The numbers for that entity's tower, in order."""
        return tuple(d for d in self.dense if self.feature(d.of[0]).entity == entity)
