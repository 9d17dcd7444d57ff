"""What travels over HTTP: the requests and answers, as typed structs.

The same structs decode, check, encode, and are rendered to the OpenAPI page, so that the page
cannot say something else than the server does.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from streaming.events import MAX_ID_BYTES, SECONDS_LIMIT, Click, Impression, RankedItem

Id = Annotated[
    str,
    msgspec.Meta(
        min_length=1, max_length=MAX_ID_BYTES, description=f"1 to {MAX_ID_BYTES} bytes of UTF-8"
    ),
]
Milliseconds = Annotated[
    int,
    msgspec.Meta(ge=SECONDS_LIMIT, le=2**53, description="milliseconds since 1970 in UTC"),
]


class RankRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the candidates should this user see?

    Unknown users and items are ranked too. A candidate that is named twice is ranked once.
    """

    user_id: Id
    candidates: (
        Literal["all"]
        | Annotated[
            list[Id],
            msgspec.Meta(min_length=1, description="at most serving.max_candidates item ids"),
        ]
    )
    """Item ids, or "all" items that the channel knows."""
    k: Annotated[
        int, msgspec.Meta(ge=1, description="how many to return at most, the best first")
    ] = 100
    context: (
        Annotated[
            dict[str, Any], msgspec.Meta(description="logged with each impression; 4 KiB at most")
        ]
        | None
    ) = None
    request_id: (
        Annotated[Id, msgspec.Meta(description="must not repeat; made up if it is missing")] | None
    ) = None
    ts: (
        Annotated[
            Milliseconds,
            msgspec.Meta(description="event time of the request; the clock if missing"),
        ]
        | None
    ) = None
    channel: (
        Annotated[
            str,
            msgspec.Meta(description="asks for a channel: the request is not in the experiment"),
        ]
        | None
    ) = None
    log: Annotated[
        bool, msgspec.Meta(description="whether the returned items are logged as impressions")
    ] = True


class RankAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The best items, best first, and exactly what scored them."""

    request_id: str
    user_id: str
    variant: str | None
    """null: the request is not part of the experiment."""
    channel: str
    version: str
    delta: Annotated[
        int, msgspec.Meta(description="number of the last delta in it; -1: none since the version")
    ]
    ts: int
    items: list[RankedItem]


class EventBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events that happened. A single impression or click may be posted bare as well."""

    impressions: list[Impression] = []
    clicks: list[Click] = []


class EventsAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """How many events Kafka has acknowledged."""

    impressions: int
    clicks: int


class HeldVersion(msgspec.Struct, frozen=True, kw_only=True):
    """What a channel serves right now. Times are milliseconds since 1970."""

    version: str
    delta: int
    created_ms: int
    loaded_ms: int
    delta_created_ms: int | None
    items: int
    users: int


class RefusedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version or delta that was not taken, and why."""

    what: str
    reason: str
    detail: str
    at_ms: int


class ChannelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A channel: what it serves (null: nothing yet) and what it refused last, newest first."""

    serves: HeldVersion | None
    refused: list[RefusedVersion]


class VersionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """All channels of this server, and the experiment that sends users to them."""

    channels: dict[str, ChannelAnswer]
    experiment: str
    shares: dict[str, float]


class ModelRow(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a channel has learnt of an id, and the event time of the newest sample behind it."""

    version: str
    delta: int
    known: bool
    ts: int | None
    """null: of no delta since the version was made."""


class EntityAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server holds of a user or item: feature row, attributes, and rows by channel."""

    id: str
    features: dict[str, Any] | None
    """The newest feature row, with its event time ``ts``."""
    attributes: dict[str, str | list[str]]
    channels: dict[str, ModelRow]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process is alive (``/healthz``) or able to rank (``/readyz``); ``reason`` if not."""

    ok: bool
    reason: str | None = None


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was refused: the field at fault (null: the request as a whole), and a cure."""

    status: int
    field: str | None
    cause: str
    cure: str


class ProblemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The form of every error."""

    error: Problem


def openapi_schemas() -> dict[str, Any]:
    """The structs as ``components.schemas`` of an OpenAPI document."""
    _, components = msgspec.json.schema_components(
        [
            RankRequest,
            RankAnswer,
            EventBatch,
            EventsAccepted,
            VersionsAnswer,
            EntityAnswer,
            Health,
            ProblemAnswer,
        ],
        ref_template="#/components/schemas/{name}",
    )
    return components
