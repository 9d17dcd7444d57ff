"""HTTP client of the server, for the commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from deploy.local.parts import server_url
from settings.errors import HeadraceError
from settings.settings import Settings


class Client:
    """Calls the server of these settings over one keep-alive connection."""

    def __init__(self, settings: Settings) -> None:
        self._url = server_url(settings)
        self._http = httpx.Client(base_url=self._url, timeout=30.0)

    def rank(
        self,
        user_id: str,
        candidates: Sequence[str] | str,
        *,
        k: int,
        ts: int | None = None,
        request_id: str | None = None,
        channel: str = "",
    ) -> dict[str, Any]:
        """``POST /v1/rank``: the answer as the server gave it. No impression is logged."""
        body: dict[str, Any] = {"user_id": user_id, "candidates": candidates, "k": k}
        optional = {"ts": ts, "request_id": request_id, "channel": channel or None}
        body |= {name: value for name, value in optional.items() if value is not None}
        return self._call("POST", "/v1/rank", body)

    def get(self, path: str) -> dict[str, Any]:
        """A GET; the answer's JSON."""
        return self._call("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """A POST; the answer's JSON."""
        return self._call("POST", path, body)

    def serves_versions(self) -> bool:
        """Whether the server has a version of every channel to rank with."""
        try:
            answer = self._http.get("/v1/versions")
        except httpx.TransportError:
            return False
        channels = answer.json()["channels"].values() if answer.is_success else ()
        return bool(channels) and all(channel["serves"] for channel in channels)

    def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise HeadraceError(
                f"no server answers at {self._url} ({error}); start one with `headrace up`,"
                " or use --set serving.port=PORT for the one that runs"
            ) from error
        if response.is_error:
            raise HeadraceError(f"{method} {path}: HTTP {response.status_code}: {response.text}")
        answer: dict[str, Any] = response.json()
        return answer
