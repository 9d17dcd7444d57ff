"""A whole event log as arrays.

Ids become codes in the order of their text, so that sorting by code is sorting by id.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.catalogue import Catalogue
from features.declaration import ENTITIES, Declaration, Source
from settings.errors import ConfigurationError
from streaming.events import Click, encode
from streaming.logs import Event, EventLog
from streaming.logs.log_file import CLICK

Report = Callable[[float], None]

# events between two reports of progress
_REPORT = 20_000


@dataclass(frozen=True, slots=True)
class Happened:
    """Impressions or clicks, sorted by (ts, user, item).

    Attributes:
        users: int32 [n], codes.
        items: int32 [n], codes.
        ts: int64 [n], ms.
    """

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    ts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ts)


@dataclass(frozen=True, slots=True)
class LogArrays:
    """All of a log.

    Attributes:
        name: of the log.
        user_ids: the text of each user's code, rising.
        item_ids: the same of items.
        impressions: one a row of every evaluation.
        clicks: the first one of each impression that was clicked in time.
        labels: uint8 [n], 1 where the impression was clicked in time.
        catalogue: static fields.
        contexts: of the request of each impression; empty if the log has none.
        positions: int32 [n], the place of each impression on its page, -1 where it is not known.
        sampling_rate: share of what was not clicked that the log holds.
    """

    name: str
    user_ids: list[str]
    item_ids: list[str]
    impressions: Happened
    clicks: Happened
    labels: NDArray[np.uint8]
    catalogue: Catalogue
    contexts: list[Mapping[str, Any] | None]
    positions: NDArray[np.int32]
    sampling_rate: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)

    def happened(self, source: Source) -> Happened:
        """Impressions or clicks."""
        return self.impressions if source == "impression" else self.clicks


def load(
    source: EventLog, declaration: Declaration, sample: float = 1.0, progress: Report | None = None
) -> LogArrays:
    """Read a log into arrays.

    Args:
        source: any reader.
        declaration: of its static fields.
        sample: read the first part of the events only, 0 < sample ≤ 1.
        progress: called with the part that is done.

    Raises:
        ConfigurationError: ``sample`` is not such a number, or no impression is left.
        LogFileError: a file of the log is broken.
    """
    if not 0 < sample <= 1:
        raise ConfigurationError(f"--sample {sample}: it must be over 0 and at most 1")
    stop = max(1, round(source.count * sample))
    window = source.attribution_ms
    shown, clicked = _Column(), _Column()
    labels = bytearray()
    contexts: list[Mapping[str, Any] | None] = []
    positions: list[int] = []
    positive = source.positives
    open_rows: dict[tuple[str | None, str, str], int] = {}
    for number, event in enumerate(source.events(0, stop)):
        if progress is not None and number % _REPORT == 0:
            progress(number / stop)
        pair = (event.user_id, event.item_id)
        row = open_rows.get((event.request_id, *pair))
        if isinstance(event, Click):
            if (event.action or CLICK) not in positive:
                continue
            # as in the job: neither a click without an impression nor a second one counts
            if row is not None and event.ts - shown.ts[row] <= window and not labels[row]:
                clicked.add(event)
                labels[row] = 1
        elif row is None:
            open_rows[event.request_id, *pair] = open_rows[None, *pair] = len(labels)
            shown.add(event)
            labels.append(0)
            contexts.append(event.context)
            positions.append(-1 if event.position is None else event.position)
    if not labels:
        raise ConfigurationError(f"{source.name} holds no impression: is --sample too small?")
    catalogue = Catalogue(declaration)
    for side, entities in zip(ENTITIES, (source.users(), source.items()), strict=True):
        for entity in entities:
            catalogue.apply(side, entity.id.encode(), encode(entity))
    user_ids = sorted({*shown.users, *clicked.users})
    item_ids = sorted({*shown.items, *clicked.items})
    users = {text: code for code, text in enumerate(user_ids)}
    items = {text: code for code, text in enumerate(item_ids)}
    impressions, order = shown.coded(users, items)
    return LogArrays(
        name=source.name,
        user_ids=user_ids,
        item_ids=item_ids,
        impressions=impressions,
        clicks=clicked.coded(users, items)[0],
        labels=np.frombuffer(bytes(labels), np.uint8)[order],
        catalogue=catalogue,
        contexts=[contexts[at] for at in order.tolist()] if any(contexts) else [],
        positions=np.array(positions, np.int32)[order],
        sampling_rate=source.sampling_rate,
    )


class _Column:
    """Events as they come."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.items: list[str] = []
        self.ts: list[int] = []

    def add(self, event: Event) -> None:
        self.users.append(event.user_id)
        self.items.append(event.item_id)
        self.ts.append(event.ts)

    def coded(
        self, users: Mapping[str, int], items: Mapping[str, int]
    ) -> tuple[Happened, NDArray[np.int64]]:
        """The events by code, sorted by (ts, user, item), and the order that sorted them."""
        n = len(self.ts)
        user = np.fromiter((users[u] for u in self.users), np.int32, n)
        item = np.fromiter((items[i] for i in self.items), np.int32, n)
        ts = np.array(self.ts, np.int64)
        order = np.lexsort((item, user, ts))
        return Happened(user[order], item[order], ts[order]), order
