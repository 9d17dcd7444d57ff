"""The routes of the HTTP interface; :mod:`serving.http.messages` has the forms."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException

from features.declaration import Entity
from serving.http.entity_intake import read_changes
from serving.http.event_intake import read_events
from serving.http.messages import (
    EntitiesAccepted,
    EntityAnswer,
    EventsAccepted,
    Health,
    RankRequest,
    VersionsAnswer,
    openapi_schemas,
)
from serving.http.outbox import CAPACITY, OutboxRecord
from serving.http.problems import RequestError, cure_for, decode, label_of
from serving.http.service import Service
from serving.server_metrics import REQUESTS_REFUSED
from settings.errors import BrokerError
from settings.settings import Settings
from streaming.events import MAX_ID_BYTES

log = logging.getLogger(__name__)

_DELIVERY_S = 5.0
_JSON = "application/json"
# of one body: ten such must find room in the outbox
MAX_RECORDS = CAPACITY // 10
# bytes that a request may have besides its candidates
_ROOM_BYTES = 1 << 20


class _Json(Response):
    media_type = _JSON


def _reply(status: int, body: msgspec.Struct) -> Response:
    return _Json(msgspec.json.encode(body), status)


def _refusal(path: str, error: RequestError) -> Response:
    REQUESTS_REFUSED.labels(path, error.status, label_of(error.field)).inc()
    return _Json(error.body(), error.status)


async def _body(request: Request, limit: int) -> bytes:
    """The body, unless it is longer than allowed: then not even all of it is read."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise RequestError(
                413, f"the body has more than {limit} bytes", "send less, in several requests"
            )
        parts.append(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def make_app(settings: Settings, service: Service) -> FastAPI:
    """The application. The service starts and stops with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        service.stop()

    app = FastAPI(
        title="headrace",
        summary="Pre-ranking with a model that keeps learning from the click stream",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    limit = settings.serving.max_candidates * (MAX_ID_BYTES + 3) + _ROOM_BYTES
    rank_decoder = msgspec.json.Decoder(RankRequest)
    encoder = msgspec.json.Encoder()

    @app.post("/v1/rank", **_described("RankRequest", "RankAnswer", (400, 413, 422)))
    async def rank(request: Request) -> Response:
        """Rank candidates for a user: the best k with their click probabilities."""
        body = await _body(request, limit)
        return _Json(encoder.encode(service.ranker.rank(decode(rank_decoder, body))))

    @app.post(
        "/v1/events",
        status_code=202,
        **_described("EventBatch", "EventsAccepted", (400, 413, 422, 503), ok=202),
    )
    async def events(request: Request) -> Response:
        """Take events in. 202: Kafka has them. Of a post with an error nothing is kept."""
        posted = read_events(await _body(request, limit), settings, service.recent)
        await _deliver(
            service,
            posted.records,
            "post the same events again when Kafka is back: repeated ones are recognised by their"
            " ids and counted once",
        )
        return _reply(202, EventsAccepted(impressions=posted.impressions, clicks=posted.clicks))

    async def change(entity: Entity, request: Request) -> Response:
        body = await _body(request, limit)
        changes = read_changes(body, entity, service.declaration, settings)
        await _deliver(
            service, changes.records, "post the same again when Kafka is back: it does no harm"
        )
        return _reply(202, EntitiesAccepted(upserted=changes.upserted, deleted=changes.deleted))

    @app.post(
        "/v1/users",
        status_code=202,
        **_described("EntityBatch", "EntitiesAccepted", (400, 413, 422, 503), ok=202),
    )
    async def put_users(request: Request) -> Response:
        """Put users with their attributes, or delete them; used from the next request on."""
        return await change("user", request)

    @app.post(
        "/v1/items",
        status_code=202,
        **_described("EntityBatch", "EntitiesAccepted", (400, 413, 422, 503), ok=202),
    )
    async def put_items(request: Request) -> Response:
        """Put items with their attributes, or delete them: a deleted item is not ranked."""
        return await change("item", request)

    @app.get("/v1/users/{user_id:path}", **_described(None, "EntityAnswer", (422, 503)))
    async def user(user_id: str) -> Response:
        """What the server holds of a user."""
        return _reply(200, _entity(service, "user", user_id))

    @app.get("/v1/items/{item_id:path}", **_described(None, "EntityAnswer", (422, 503)))
    async def item(item_id: str) -> Response:
        """What the server holds of an item."""
        return _reply(200, _entity(service, "item", item_id))

    @app.get("/v1/versions", **_described(None, "VersionsAnswer", ()))
    async def versions() -> Response:
        """What each channel serves and what it refused, and who gets which channel."""
        experiment = service.experiment
        return _reply(
            200,
            VersionsAnswer(
                channels={name: c.answer() for name, c in service.channels.items()},
                experiment=experiment.name,
                shares={v.name: v.share for v in experiment.variants},
            ),
        )

    @app.get("/healthz", **_described(None, "Health", ()))
    async def healthz() -> Response:
        """The process is alive."""
        return _reply(200, Health(ok=True))

    @app.get("/readyz", **_described(None, "Health", (), also={503: "Health"}))
    async def readyz() -> Response:
        """Whether it has read the store and the topics; 503 with the reason until then.

        A server that is ready may still rank by popularity, if no version has been published.
        """
        reason = service.not_ready()
        return _reply(503 if reason else 200, Health(ok=not reason, reason=reason or None))

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    @app.exception_handler(RequestError)
    async def refused(request: Request, error: RequestError) -> Response:
        return _refusal(request.scope["route"].path, error)

    @app.exception_handler(HTTPException)
    async def unknown(request: Request, error: HTTPException) -> Response:
        problem = RequestError(error.status_code, f"{request.method}: {error.detail}", "see /docs")
        return _refusal("other", problem)

    app.openapi = _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


async def _deliver(service: Service, records: Sequence[OutboxRecord], cure: str) -> None:
    """Have records acknowledged by Kafka."""
    if len(records) > MAX_RECORDS:
        raise RequestError(
            413,
            f"{len(records)} records in one body, the limit is {MAX_RECORDS}",
            "send them in several requests",
        )
    try:
        await service.outbox.deliver(records, _DELIVERY_S)
    except BrokerError as error:
        raise RequestError(503, str(error), cure) from error


def _entity(service: Service, entity: Entity, name: str) -> EntityAnswer:
    if not 1 <= len(name.encode()) <= MAX_ID_BYTES:
        raise RequestError(
            422,
            f"an id has 1 to {MAX_ID_BYTES} bytes",
            cure_for(f"{entity}_id"),
            field=f"{entity}_id",
        )
    return service.entity(entity, name)


def _described(
    request: str | None,
    answer: str,
    errors: Sequence[int],
    *,
    ok: int = 200,
    also: dict[int, str] | None = None,
) -> dict[str, Any]:
    """A route's entry in the OpenAPI document."""

    def content(name: str) -> dict[str, Any]:
        return {_JSON: {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    forms = {ok: answer, **dict.fromkeys(errors, "ProblemAnswer"), **(also or {})}
    described: dict[str, Any] = {
        "response_class": _Json,
        "responses": {
            status: {"content": content(name), "description": name}
            for status, name in forms.items()
        },
    }
    if request is not None:
        described["openapi_extra"] = {
            "requestBody": {"required": True, "content": content(request)}
        }
    return described


def _openapi(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The OpenAPI document, with the schemas of the structs; built once."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
            made.setdefault("components", {}).setdefault("schemas", {}).update(openapi_schemas())
            app.openapi_schema = made
        return app.openapi_schema

    return document
