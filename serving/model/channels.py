"""The channels of a server: which version each serves, and which it refused."""

from __future__ import annotations

import logging
import time
from collections import deque

from serving.http.messages import ChannelAnswer, HeldVersion, RefusedVersion
from serving.model.live_model import DeltaRows, LiveModel
from serving.server_metrics import (
    DELTA,
    DELTA_LAG,
    DELTAS,
    FRESHNESS,
    ROWS,
    STALE_ROWS,
    VERSION_CREATED,
    VERSION_INFO,
    VERSIONS_REFUSED,
)

log = logging.getLogger(__name__)

_REFUSALS_KEPT = 20


def now_ms() -> int:
    """The clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Channel:
    """One line of versions. ``live`` is what serves now; None until a version is installed.

    ``install`` and ``apply`` are called on the event loop only (:mod:`serving.model.live_model`).
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.live: LiveModel | None = None
        self.refused: deque[RefusedVersion] = deque(maxlen=_REFUSALS_KEPT)
        FRESHNESS.labels(name).set_function(self._freshness_s)
        ROWS.labels(name, "user").set_function(lambda: len(self.live.users) if self.live else 0)
        ROWS.labels(name, "item").set_function(lambda: self.live.learnt_items if self.live else 0)

    def _freshness_s(self) -> float:
        created = self.live.delta_created_ms if self.live else None
        return float("nan") if created is None else (now_ms() - created) / 1000

    def install(self, live: LiveModel) -> None:
        """Switch to another version."""
        before, self.live = self.live, live
        if before is not None:
            VERSION_INFO.remove(self.name, before.version)
        VERSION_INFO.labels(self.name, live.version).set(1)
        VERSION_CREATED.labels(self.name).set(live.created_ms / 1000)
        DELTA.labels(self.name).set(live.delta)
        log.info(
            "channel %s serves version %s (before: %s), delta %d, %d items, %d users",
            self.name,
            live.version,
            before.version if before else "none",
            live.delta,
            live.learnt_items,
            len(live.users),
        )

    def apply(self, delta: DeltaRows) -> None:
        """Apply a checked delta of the version that serves; ignore one of another version."""
        live = self.live
        if live is None or live.version != delta.base_version:
            DELTAS.labels(self.name, "other_base").inc()
            return
        STALE_ROWS.labels(self.name).inc(live.apply(delta))
        DELTAS.labels(self.name, "applied").inc()
        DELTA.labels(self.name).set(delta.number)
        DELTA_LAG.labels(self.name).observe(max(0, now_ms() - delta.created_ms) / 1000)

    def refuse(self, what: str, reason: str, detail: str) -> None:
        """Record, log and count a refusal."""
        serves = self.live.version if self.live else "nothing"
        log.error(
            "channel %s refuses %s (%s): %s; it serves %s", self.name, what, reason, detail, serves
        )
        self.refused.appendleft(
            RefusedVersion(what=what, reason=reason, detail=detail, at_ms=now_ms())
        )
        if what.startswith("delta"):
            DELTAS.labels(self.name, "refused").inc()
        else:
            VERSIONS_REFUSED.labels(self.name, reason).inc()

    def answer(self) -> ChannelAnswer:
        """Its part of ``/v1/versions``."""
        live, serves = self.live, None
        if live is not None:
            serves = HeldVersion(
                version=live.version,
                delta=live.delta,
                created_ms=live.created_ms,
                loaded_ms=live.loaded_ms,
                delta_created_ms=live.delta_created_ms,
                items=live.learnt_items,
                users=len(live.users),
            )
        return ChannelAnswer(serves=serves, refused=list(self.refused))
