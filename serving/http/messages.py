"""Requests and answers of the HTTP interface, as typed structs.

The same structs decode, check and encode, and are rendered to the OpenAPI document, so that the
document always matches the server.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from streaming.events import MAX_ID_BYTES, SECONDS_LIMIT, Click, RankedItem

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
            dict[str, Any],
            msgspec.Meta(
                description="of the request, such as hour or device: texts, numbers, booleans and"
                " lists of texts; the model reads the fields that the log declares; 4 KiB at most"
            ),
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
    log: (
        Annotated[
            Literal["shown"],
            msgspec.Meta(
                description="all returned items are shown: log them as impressions; missing: post"
                " those that were shown to /v1/events"
            ),
        ]
        | None
    ) = None


class RankAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The best items, best first, and exactly what scored them."""

    request_id: str
    user_id: str
    experiment: str | None
    """null, like the variant: the request is not part of an experiment."""
    variant: str | None
    model: str
    version: str | None
    """null: the model has no version yet, see ``cold``."""
    delta: Annotated[
        int, msgspec.Meta(description="number of the last delta in it; -1: none since the version")
    ]
    ts: int
    cold: Annotated[
        bool,
        msgspec.Meta(description="no version serves yet: ranked by how often items were clicked"),
    ]
    blank_features: Annotated[
        bool,
        msgspec.Meta(
            description="the feature store could not be read: ranked as if the user were new"
        ),
    ]
    items: list[RankedItem]


class PostedImpression(msgspec.Struct, frozen=True, kw_only=True):
    """An item was shown to a user.

    Of an item that this server ranked under ``request_id``, the server knows the user, experiment,
    variant, model, version, score and propensity: they may be left out.
    """

    request_id: str
    item_id: str
    user_id: str | None = None
    ts: Annotated[int | None, msgspec.Meta(description="the clock if missing")] = None
    position: int | None = None
    score: float | None = None
    experiment: str | None = None
    variant: str | None = None
    model: str | None = None
    version: str | None = None
    propensity: float | None = None
    context: dict[str, Any] | None = None


class EventBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events that happened. A single impression or click may be posted bare as well."""

    impressions: list[PostedImpression] = []
    clicks: list[Click] = []


class EntityUpsert(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item or user with all of its attributes: those held before are replaced."""

    id: Id
    attributes: Annotated[
        dict[str, str | float | list[str | float]],
        msgspec.Meta(description="texts, numbers or lists of them, as the log declares them"),
    ]


class EntityBatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Items or users to put and to delete. An id may be in one of the two lists, and once."""

    upsert: list[EntityUpsert] = []
    delete: list[Id] = []


class EntitiesAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """How many items or users Kafka has acknowledged."""

    upserted: int
    deleted: int


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
    known: Annotated[bool, msgspec.Meta(description="it was posted or loaded, and not deleted")]
    features: dict[str, Any] | None
    """The newest feature row, with its event time ``ts``."""
    attributes: dict[str, str | float | list[str | float]]
    channels: dict[str, ModelRow]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Alive (``/healthz``), or ready for requests (``/readyz``); ``reason`` if not."""

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
            EntityBatch,
            EntitiesAccepted,
            VersionsAnswer,
            EntityAnswer,
            Health,
            ProblemAnswer,
        ],
        ref_template="#/components/schemas/{name}",
    )
    return components
