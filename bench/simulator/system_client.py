"""HTTP client of the system under test: answers, latencies, refusals."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import orjson

from settings.errors import HeadraceError

_TIMEOUT_S = 10.0
_FIELD = re.compile(r"^(?P<kind>impressions|clicks)\[(?P<number>\d+)\]")
_JSON = {"content-type": "application/json"}


@dataclass(slots=True)
class CallFigures:
    """What calls of one kind came to.

    Attributes:
        milliseconds: of each call that was answered well.
        refused: by status and field, or by the name of what went wrong on the way.
    """

    milliseconds: list[float] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


class SystemRefusalError(HeadraceError):
    """The system refused a call.

    Args:
        status: HTTP status; 0: no answer.
        place: the field at fault, or what went wrong.
        text: the whole answer.
    """

    def __init__(self, status: int, place: str, text: str) -> None:
        super().__init__(f"HTTP {status}: {place}: {text}")
        self.status = status
        self.place = place


class SystemClient:
    """Calls a server and keeps count.

    Args:
        url: of the server.
        connections: at most, kept alive.
    """

    def __init__(self, url: str, connections: int = 32) -> None:
        self.url = url
        self.rankings = CallFigures()
        self.events = CallFigures()
        self.entities = CallFigures()
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        self._http = httpx.AsyncClient(base_url=url, timeout=_TIMEOUT_S, limits=limits)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def channels(self) -> list[str]:
        """Names of the channels that the server holds.

        Raises:
            HeadraceError: no server answers.
        """
        try:
            answer = await self._http.get("/v1/versions")
        except httpx.TransportError as error:
            raise HeadraceError(
                f"no server answers at {self.url} ({error}); start one with `headrace up`, or give"
                " its address with --url"
            ) from error
        if answer.is_error:
            raise HeadraceError(f"{self.url}/v1/versions: HTTP {answer.status_code}: {answer.text}")
        return list(answer.json()["channels"])

    async def rank(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """``POST /v1/rank``.

        Raises:
            SystemRefusalError: it was refused, or the server did not answer.
        """
        return await self._post("/v1/rank", body, self.rankings)

    async def post_events(
        self, impressions: Sequence[Mapping[str, Any]], clicks: Sequence[Mapping[str, Any]]
    ) -> None:
        """``POST /v1/events``.

        Raises:
            SystemRefusalError: as above; nothing of the post was kept.
        """
        await self._post("/v1/events", {"impressions": impressions, "clicks": clicks}, self.events)

    async def upsert(self, what: str, entities: Sequence[Mapping[str, Any]]) -> None:
        """``POST /v1/items`` or ``/v1/users``.

        Raises:
            SystemRefusalError: as above.
        """
        await self._post(f"/v1/{what}", {"upsert": entities}, self.entities)

    async def _post(
        self, path: str, body: Mapping[str, Any], figures: CallFigures
    ) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            answer = await self._http.post(path, content=orjson.dumps(body), headers=_JSON)
        except httpx.TransportError as error:
            figures.refused[type(error).__name__] += 1
            raise SystemRefusalError(0, type(error).__name__, str(error)) from error
        if answer.is_error:
            place = _place(answer)
            figures.refused[f"{answer.status_code} {place.partition('[')[0]}".strip()] += 1
            raise SystemRefusalError(answer.status_code, place, answer.text[:500])
        figures.milliseconds.append((time.perf_counter() - began) * 1000)
        decoded: dict[str, Any] = orjson.loads(answer.content) if answer.content else {}
        return decoded


def refused_event(error: SystemRefusalError) -> tuple[str, int] | None:
    """Which event of a post was at fault: ``impressions`` or ``clicks``, and its number.

    >>> refused_event(SystemRefusalError(422, "clicks[3].ts", "..."))
    ('clicks', 3)
    """
    found = _FIELD.match(error.place)
    return (found["kind"], int(found["number"])) if found else None


def _place(answer: httpx.Response) -> str:
    try:
        return str(orjson.loads(answer.content)["error"]["field"] or "")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""
