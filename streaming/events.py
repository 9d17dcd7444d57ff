"""The schemas of everything that travels on Kafka.

JSON, one event a message; ids are text, times are milliseconds since the epoch in UTC.
Unknown fields pass, missing or mistyped ones are refused (:func:`decode_event`).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, TypeVar, cast, get_type_hints

import msgspec

from settings.errors import EventError
from settings.log_settings import DEFAULT_ACTION

MAX_ID_BYTES = 256
# of a record that an application may send: Kafka's own limit is 1 MiB with all that it adds
MAX_EVENT_BYTES = 1_000_000
# 1973-03-03 in milliseconds: a smaller time is one that was written in seconds
SECONDS_LIMIT = 100_000_000_000
# the year 2286: the largest time of 13 digits
MAX_TIME_MS = 9_999_999_999_999
_LARGEST = int(sys.float_info.max)
_MARK = re.compile(rb'\{"time_mark":[1-9]\d{11,12}\}')

# what a BIGINT of Flink and an int64 of numpy can hold
Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]


class Impression(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An item was shown to a user."""

    request_id: str
    user_id: str
    item_id: str
    ts: Int64
    position: Int64 | None = None
    score: float | None = None
    experiment: str | None = None
    variant: str | None = None
    model: str | None = None
    version: str | None = None
    propensity: float | None = None
    context: dict[str, Any] | None = None


class Click(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A user acted on an item.

    ``action`` is a kind that ``log.actions`` declares; without one it is a click.
    """

    event_id: str
    user_id: str
    item_id: str
    ts: Int64
    request_id: str | None = None
    action: str | None = None
    value: float | None = None


class RankedItem(msgspec.Struct, frozen=True):
    """One item of a ranking, with its predicted click probability."""

    item_id: str
    score: float


class Ranking(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What the server answered to one request, the best item first. Ranked is not shown.

    ``delta`` is the number of the last delta in the version (-1: none). ``experiment``,
    ``variant`` and ``propensity`` are missing outside of an experiment, ``version`` when no
    version served yet. ``features`` are those of the user as they were read, of a share of the
    requests (``serving.features_logged_share``).
    """

    request_id: str
    user_id: str
    ts: int
    model: str
    items: list[RankedItem]
    version: str | None = None
    delta: int = -1
    experiment: str | None = None
    variant: str | None = None
    propensity: float | None = None
    context: dict[str, Any] | None = None
    features: dict[str, Any] | None = None


class TimeMark(msgspec.Struct, frozen=True, kw_only=True):
    """Nothing with an older record timestamp follows in this partition.

    The mark's own record timestamp is what counts; a replay writes ``time_mark`` there too.
    """

    time_mark: int


class Entity(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes of an item or a user: the row of the topics ``items`` and ``users``.

    ``attributes`` maps a field name to a text (a category), a list of texts (a set), a number, or a
    list of numbers (a vector).
    """

    id: str
    attributes: Mapping[str, str | float | Sequence[str | float]]


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A refused record: its bytes, untouched (base64 in JSON), where it lay, and why."""

    topic: str
    partition: int
    offset: int
    reason: str
    value: bytes
    detail: str | None = None


class VersionAnnounced(msgspec.Struct, frozen=True, tag="version", kw_only=True):
    """A channel has a new current version in the model store."""

    channel: str
    version: str
    created_ms: int


class Delta(msgspec.Struct, frozen=True, tag="delta", kw_only=True):
    """Fresh rows, encoded with the dense weights of ``base_version``.

    The offset of the record on ``model.updates`` is the delta's number. Arrays are little-endian
    float32, row-major: ``user_rows`` [n, R], ``item_vectors`` [m, W], ``item_rows`` [m, D] (the id
    embeddings that user histories look up). ``*_ts`` is the event time of the newest sample behind
    each row.
    """

    channel: str
    base_version: str
    created_ms: int
    user_ids: list[str]
    user_ts: list[int]
    user_rows: bytes
    item_ids: list[str]
    item_ts: list[int]
    item_vectors: bytes
    item_rows: bytes


Update = VersionAnnounced | Delta

_encoder = msgspec.json.Encoder()
# what an event must name; a dead letter otherwise
_IDS: dict[type[Impression] | type[Click], tuple[str, ...]] = {
    Impression: ("request_id", "user_id", "item_id"),
    Click: ("event_id", "user_id", "item_id"),
}
_decoders = {kind: msgspec.json.Decoder(kind) for kind in _IDS}
_hints = {kind: get_type_hints(kind, include_extras=True) for kind in _IDS}
_Event = TypeVar("_Event", Impression, Click)


def encode(event: msgspec.Struct) -> bytes:
    """The event as it travels.

    >>> encode(TimeMark(time_mark=978300760000))
    b'{"time_mark":978300760000}'
    """
    return _encoder.encode(event)


def is_mark(data: bytes) -> bool:
    """Whether a record is a time mark, which is written in one way only.

    >>> is_mark(b'{"time_mark":978300760000}'), is_mark(b'{"time_mark":null}')
    (True, False)
    """
    return _MARK.fullmatch(data) is not None


def decode_event(
    kind: type[_Event],
    data: bytes,
    *,
    record_ms: int,
    max_ahead_ms: int,
    max_late_ms: int | None = None,
    actions: Collection[str] | None = None,
) -> _Event | TimeMark:
    """Read and check one record of ``impressions`` or ``clicks``.

    The reasons are tried in this order, over all fields before the next: ``malformed_json`` (also:
    not an object), ``missing_field`` (also: null), ``wrong_type`` (also: a number beyond what a
    double or 64 bits hold), ``bad_id``, ``time_negative``, ``time_in_seconds``, ``time_in_future``,
    ``too_late``, ``unknown_action``. The streaming job refuses by the same rules.

    Args:
        kind: :class:`Impression` or :class:`Click`.
        data: the record's value.
        record_ms: the record timestamp, or now where it is not a record yet.
        max_ahead_ms: how far ahead of that an event may be (``flink.max_ahead_ms``).
        max_late_ms: how far behind (``flink.max_late_ms``); None: any.
        actions: the kinds that are declared (``log.actions``); None: any.

    Raises:
        EventError: with the dead-letter reason and the field.

    >>> late = b'{"event_id":"e","user_id":"u","item_id":"i","ts":5}'
    >>> decode_event(Click, late, record_ms=0, max_ahead_ms=0)
    Traceback (most recent call last):
    ...
    settings.errors.EventError: ts is 5: in seconds? Times are milliseconds since 1970 in UTC
    """
    if is_mark(data):
        return msgspec.json.decode(data, type=TimeMark)
    try:
        event = _decoders[kind].decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise _refusal(kind, data, error) from error
    check_event(
        event,
        record_ms=record_ms,
        max_ahead_ms=max_ahead_ms,
        max_late_ms=max_late_ms,
        actions=actions,
    )
    # the table of decoders cannot say that each yields its own kind
    return cast(_Event, event)


def check_event(
    event: Impression | Click,
    *,
    record_ms: int,
    max_ahead_ms: int,
    max_late_ms: int | None = None,
    actions: Collection[str] | None = None,
) -> None:
    """Check the ids, the time and the kind of an event whose types are right.

    Raises:
        EventError: with the dead-letter reason and the field.
    """
    if isinstance(event, Impression) and event.context is not None:
        _check_numbers(event.context)
    for name in _IDS[type(event)]:
        _check_id(name, getattr(event, name))
    if isinstance(event, Click) and event.request_id is not None:
        _check_id("request_id", event.request_id)
    check_time("ts", event.ts, record_ms, max_ahead_ms)
    if max_late_ms is not None and event.ts < record_ms - max_late_ms:
        raise EventError(
            f"ts is {event.ts}: more than {max_late_ms} ms before {record_ms}, when it arrived"
            " (flink.max_late_ms); is the sender's clock right?",
            reason="too_late",
            field="ts",
        )
    if isinstance(event, Click) and actions is not None:
        action = DEFAULT_ACTION if event.action is None else event.action
        if action not in actions:
            raise EventError(
                f"action {action!r:.80} is none of {', '.join(actions)}: declare it in log.actions",
                reason="unknown_action",
                field="action",
            )


def check_time(name: str, ts: int, record_ms: int, max_ahead_ms: int) -> None:
    """Check the time stamp of an event.

    Raises:
        EventError: it cannot be true.
    """
    if ts < 0:
        raise EventError(f"{name} is {ts}: before 1970", reason="time_negative", field=name)
    if ts < SECONDS_LIMIT:
        raise EventError(
            f"{name} is {ts}: in seconds? Times are milliseconds since 1970 in UTC",
            reason="time_in_seconds",
            field=name,
        )
    if ts > min(record_ms + max_ahead_ms, MAX_TIME_MS):
        raise EventError(
            f"{name} is {ts}: more than {max_ahead_ms} ms ahead of {record_ms}; is the sender's"
            " clock right?",
            reason="time_in_future",
            field=name,
        )


def _check_numbers(value: object) -> None:
    """Refuse whole numbers of a context that no double can hold."""
    if isinstance(value, dict):
        for inner in value.values():
            _check_numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_numbers(inner)
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise EventError("context: a number out of range", reason="wrong_type", field="context")


def _check_id(name: str, value: str) -> None:
    if not value or len(value) > MAX_ID_BYTES or len(value.encode()) > MAX_ID_BYTES:
        raise EventError(
            f"{name} must have 1 to {MAX_ID_BYTES} bytes of UTF-8", reason="bad_id", field=name
        )


def _refusal(kind: type[Impression] | type[Click], data: bytes, error: Exception) -> EventError:
    """What is wrong with a record that is no event."""
    try:
        fields = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as broken:
        if "out of range" not in str(broken):
            return EventError(f"not JSON: {broken}", reason="malformed_json")
        # a number beyond a double, which this module reads as infinite
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError) as worse:
            return EventError(f"not JSON: {worse}", reason="malformed_json")
    if not isinstance(fields, dict):
        return EventError("not a JSON object", reason="malformed_json")
    for name in (*_IDS[kind], "ts"):
        if fields.get(name) is None:
            return EventError(f"{name} is missing", reason="missing_field", field=name)
    try:
        for name, hint in _hints[kind].items():
            if name in fields:
                _check_type(name, fields[name], hint)
    except EventError as found:
        return found
    return EventError(str(error), reason="wrong_type")


def _check_type(name: str, value: object, hint: Any) -> None:  # noqa: ANN401 - a type or a union
    try:
        msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise EventError(f"{name}: {error}", reason="wrong_type", field=name) from error
