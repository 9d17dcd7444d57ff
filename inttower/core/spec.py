"""What a model reads: named fields on a user side and an item side.

A *sparse* field holds one text a row, a *multi* field a set of texts (genres), a *sequence* field a
short list of ids of another field (the last liked items: ids of the item's id field), a *dense*
field a number or a vector of ``width`` numbers, which the model scales by statistics of its
warm-up.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from inttower.errors import SpecError

Side = Literal["user", "item"]
Kind = Literal["sparse", "multi", "sequence", "dense"]


@dataclass(frozen=True, slots=True)
class Field:
    """One input of a tower.

    Args:
        name: unique in its spec.
        side: the tower that reads it.
        kind: see the module.
        is_id: the side's own id (one a side): its table keeps growing, its rows are sent in
            deltas, and id-dropout applies to it.
        of: for a sequence, the sparse field whose ids it holds.
        max_length: for multi and sequence, how many entries of a row are read, from the first on.
        width: for dense, how many numbers it has; more than 1 for a vector.
    """

    name: str
    side: Side
    kind: Kind
    is_id: bool = False
    of: str = ""
    max_length: int = 20
    width: int = 1

    def __post_init__(self) -> None:
        if self.side not in get_args(Side) or self.kind not in get_args(Kind):
            raise SpecError(
                f"field {self.name!r}: side {self.side!r} / kind {self.kind!r} is not known;"
                f" use one of {get_args(Side)} and {get_args(Kind)}"
            )
        if self.is_id and self.kind != "sparse":
            raise SpecError(f"field {self.name!r}: only a sparse field can be the side's id")
        if (self.kind == "sequence") != bool(self.of):
            raise SpecError(f"field {self.name!r}: 'of' names the table of a sequence, only of one")
        if self.width < 1 or (self.width > 1 and self.kind != "dense"):
            raise SpecError(f"field {self.name!r}: 'width' is 1, or more for a dense field")
        if self.max_length < 1:
            raise SpecError(f"field {self.name!r}: 'max_length' is at least 1")


@dataclass(frozen=True, slots=True)
class FeatureSpec:
    """All fields of a model, in order. Equal specs give models of equal shape.

    >>> spec = FeatureSpec((
    ...     Field("user_id", "user", "sparse", is_id=True),
    ...     Field("item_id", "item", "sparse", is_id=True),
    ...     Field("genres", "item", "multi"),
    ... ))
    >>> [f.name for f in spec.of_side("item")]
    ['item_id', 'genres']
    >>> FeatureSpec.from_json(spec.to_json()) == spec
    True
    """

    fields: tuple[Field, ...]

    def __post_init__(self) -> None:
        names = [f.name for f in self.fields]
        if twice := sorted({n for n in names if names.count(n) > 1}):
            raise SpecError(f"field names must be unique, these are not: {', '.join(twice)}")
        for side in get_args(Side):
            ids = [f.name for f in self.of_side(side) if f.is_id]
            if len(ids) != 1:
                raise SpecError(f"the {side} side needs exactly one field with is_id, has {ids}")
        for field in self.fields:
            if field.of and self.field(field.of).kind != "sparse":
                raise SpecError(f"field {field.name!r}: {field.of!r} is not a sparse field")

    def field(self, name: str) -> Field:
        """The field of that name."""
        for field in self.fields:
            if field.name == name:
                return field
        raise SpecError(f"no field {name!r}; there are {', '.join(f.name for f in self.fields)}")

    def of_side(self, side: Side, *kinds: Kind) -> tuple[Field, ...]:
        """The fields of one side, of the given kinds (none given: all), in order."""
        return tuple(f for f in self.fields if f.side == side and (not kinds or f.kind in kinds))

    def id_field(self, side: Side) -> Field:
        """The field that holds the side's own id."""
        return next(f for f in self.of_side(side) if f.is_id)

    def to_json(self) -> list[dict[str, Any]]:
        """A form that JSON can hold."""
        return [asdict(f) for f in self.fields]

    @classmethod
    def from_json(cls, data: list[dict[str, Any]]) -> FeatureSpec:
        """The inverse of :meth:`to_json`."""
        try:
            return cls(tuple(Field(**f) for f in data))
        except TypeError as error:
            raise SpecError(f"not a feature spec: {error}") from None
