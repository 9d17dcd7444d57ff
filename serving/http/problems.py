"""Errors of the HTTP interface: one exception, one JSON form."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from serving.http.messages import Problem, ProblemAnswer
from settings.errors import HeadraceError
from streaming.events import MAX_ID_BYTES

_AT = re.compile(r"^(?P<cause>.*?)(?: - at `\$\.?(?P<path>.*)`)?$", re.DOTALL)
_NAMED = re.compile(r"(?:missing required|contains unknown) field `(?P<name>[^`]*)`")

_ID = f"a text of 1 to {MAX_ID_BYTES} bytes"
_CURES = {
    "user_id": f"send {_ID}",
    "item_id": f"send {_ID}",
    "event_id": f"send {_ID}, another for each click",
    "request_id": f"send {_ID}, another for each request, or leave it out",
    "candidates": f'send "all", or a list of item ids, each {_ID}',
    "k": "send a whole number of at least 1",
    "ts": "send milliseconds since 1970 in UTC as a whole number, or leave it out",
    "context": "send a small JSON object, or leave it out",
    "action": "send a kind of action that log.actions declares, or leave it out for a click",
    "channel": "see /v1/versions for the channels, or leave it out",
    "log": 'send "shown", or leave it out',
    "upsert": 'send a list of {"id": …, "attributes": {name: text or list of texts}}',
    "delete": "send a list of ids",
    "attributes": "send texts, or lists of texts, by name",
    "impressions": "send a list of impressions",
    "clicks": "send a list of clicks",
}
_SEE_DOCS = "see /docs for the form of the request"
_T = TypeVar("_T")


class RequestError(HeadraceError):
    """A request that is refused.

    Args:
        status: of the HTTP answer.
        cause: what was wrong.
        cure: what to do about it.
        field: where, such as ``candidates[3]``; None: the request as a whole.
    """

    def __init__(self, status: int, cause: str, cure: str, *, field: str | None = None) -> None:
        super().__init__(f"{field or 'request'}: {cause}; {cure}")
        self.status = status
        self.cause = cause
        self.cure = cure
        self.field = field

    def body(self) -> bytes:
        """The JSON that the client gets."""
        problem = Problem(status=self.status, field=self.field, cause=self.cause, cure=self.cure)
        return msgspec.json.encode(ProblemAnswer(error=problem))


def cure_for(field: str | None) -> str:
    """What a field (also one inside of others, such as ``clicks[0].ts``) should hold.

    >>> cure_for("clicks[0].ts")
    'send milliseconds since 1970 in UTC as a whole number, or leave it out'
    """
    name = (field or "").rpartition(".")[2].partition("[")[0]
    return _CURES.get(name, _SEE_DOCS)


def label_of(field: str | None) -> str:
    """A field as the label of a metric: clients must not be able to make up more of them.

    >>> label_of("clicks[0].ts"), label_of("made_up_by_a_client"), label_of(None)
    ('clicks', 'other', '')
    """
    name = (field or "").partition("[")[0]
    return name if not name or name in _CURES else "other"


def decode(decoder: msgspec.json.Decoder[_T], body: bytes) -> _T:
    """Decode a request's body.

    Raises:
        RequestError: 400 for what is not JSON, 422 for JSON of another form, naming the field.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}", _SEE_DOCS) from error


def _invalid(message: str) -> RequestError:
    found: Any = _AT.match(message)
    cause, field = found["cause"], found["path"]
    if named := _NAMED.search(cause):
        field = f"{field}.{named['name']}" if field else named["name"]
        if "unknown" in cause:
            return RequestError(422, cause, f"leave it out; {_SEE_DOCS}", field=field)
    return RequestError(422, cause, cure_for(field), field=field or None)
