"""Converts attributes and context fields from their raw form to what a model reads."""

from __future__ import annotations

import math
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NoReturn
from zlib import crc32

from features.declaration import ContextInput, Conversion, Static
from settings.errors import EventError

Converted = str | tuple[str, ...] | float | tuple[float, ...]
Raw = str | float | Sequence[str | float] | None

_WORD = re.compile(r"\w+")
# texts of any language fall into so many rows of a table
_HASHED = 1 << 18
# models read float32
_LARGEST = 3.4e38
MOST_GRAMS = 40


def blank(field: Static | ContextInput) -> Converted:
    """The input for an unknown value."""
    if field.kind == "sparse":
        return ""
    if field.kind == "multi":
        return ()
    width = field.width if isinstance(field, Static) else 1
    return (0.0,) * width if field.convert == "vector" else _scaled(field, field.missing)


def converted(field: Static | ContextInput, value: Raw) -> Converted:
    """The input of one value.

    Raises:
        EventError: the value has the wrong type.

    >>> price = Static("price", "item", "sparse", convert="bucket", edges=(10.0, 100.0))
    >>> [converted(price, value) for value in (9.5, 10, 1e9, None)]
    ['0', '1', '2', '']
    """
    if value is None:
        return blank(field)
    return _CONVERSIONS[field.convert](field, value)


def from_context(field: ContextInput, context: Mapping[str, Any] | None) -> Converted:
    """The input of a request's context; a value of a wrong type is as good as unknown.

    An impression is not refused for what an application says about its request: the trainer that
    reads it later could not refuse it any more.
    """
    try:
        return converted(field, (context or {}).get(field.source))
    except (EventError, OverflowError):  # a whole number may be beyond a double
        return blank(field)


def _as_is(field: Static | ContextInput, value: Raw) -> Converted:
    if field.kind == "sparse":
        return _category(field, value)
    if value is None or isinstance(value, str | float | int):
        return _wrong(field, "a list of texts")
    texts = tuple(sys.intern(one) for one in value if isinstance(one, str))
    return texts if len(texts) == len(value) else _wrong(field, "a list of texts")


def _bucket(field: Static | ContextInput, value: Raw) -> Converted:
    number = _number(field, value)
    return str(bisect_right(field.edges, number)) if math.isfinite(number) else blank(field)


def _scaled_number(field: Static | ContextInput, value: Raw) -> Converted:
    scaled = _scaled(field, _number(field, value))
    return scaled if abs(scaled) <= _LARGEST else blank(field)  # also not if it is no number


def _grams(field: Static | ContextInput, value: Raw) -> Converted:
    return ngrams(value) if isinstance(value, str) else _wrong(field, "one text")


def ngrams(text: str) -> tuple[str, ...]:
    """Hashed words and pairs of neighbours of a text, each once, in order.

    >>> len(ngrams("Storm over Storm"))
    4
    """
    words = _WORD.findall(text.lower())
    grams = words + [f"{a} {b}" for a, b in pairwise(words)]
    codes = dict.fromkeys(str(crc32(gram.encode()) % _HASHED) for gram in grams)
    return tuple(codes)[:MOST_GRAMS]


def _category(field: Static | ContextInput, value: Raw) -> str:
    if isinstance(value, str):
        return sys.intern(value)
    # an attribute's category is a text; an application may give a request's as it has it
    if isinstance(field, ContextInput) and isinstance(value, float | int):
        return _plain(value)
    return _wrong(field, "one text")


def _plain(value: float) -> str:
    """A number or flag as the text of its category, however it was written.

    >>> _plain(3.0), _plain(True)
    ('3', 'true')
    """
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if float(value).is_integer() else str(value)


def _number(field: Static | ContextInput, value: Raw) -> float:
    # a CSV of the catalogue, and many an application, write numbers as texts
    if isinstance(value, bool) or not isinstance(value, float | int | str):
        return _wrong(field, "a number")
    try:
        return float(value)
    except (ValueError, OverflowError):  # a whole number may be beyond a double
        return _wrong(field, "a number")


def _scaled(field: Static | ContextInput, number: float) -> float:
    if field.convert == "log":
        return math.copysign(math.log1p(abs(number)), number)
    return number


def _vector(field: Static | ContextInput, value: Raw) -> Converted:
    width = field.width if isinstance(field, Static) else 1
    if value is None or isinstance(value, str | float | int) or len(value) != width:
        return _wrong(field, f"a list of {width} numbers")
    return tuple(_number(field, one) for one in value)


def _wrong(field: Static | ContextInput, wanted: str) -> NoReturn:
    whose = (
        f"attribute {field.source!r} of a {field.entity}"
        if isinstance(field, Static)
        else (f"field {field.source!r} of a context")
    )
    raise EventError(f"{whose} must be {wanted}", reason="wrong_type", field=field.source)


_CONVERSIONS: Mapping[Conversion, Callable[[Static | ContextInput, Raw], Converted]] = {
    "as_is": _as_is,
    "bucket": _bucket,
    "number": _scaled_number,
    "log": _scaled_number,
    "ngrams": _grams,
    "vector": _vector,
}
