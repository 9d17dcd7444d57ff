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
from settings.log_settings import ActionKind
from streaming.events import Click, encode
from streaming.logs import Event, EventLog
from streaming.logs.log_file import CLICK

Report = Callable[[float], None]

# label and weight of an impression without an action
_UNLABELLED = (0, 1.0)
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
class Decisions:
    """Every change of an impression's label or weight by an action, in order of time.

    As in the trainer: the action of the largest weight decides, of equal ones the latest. Without
    one the label is 0 and the weight 1.

    Attributes:
        rows: int64 [m], the impressions.
        ts: int64 [m], times of the actions, ms.
        labels: uint8 [m], the label from then on.
        weights: float32 [m], its weight.
    """

    rows: NDArray[np.int64]
    ts: NDArray[np.int64]
    labels: NDArray[np.uint8]
    weights: NDArray[np.float32]

    def as_of(self, count: int, ts: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Labels and weights [count] by all actions up to a time, ms."""
        labels, weights = np.zeros(count, np.uint8), np.ones(count, np.float32)
        taken = slice(int(np.searchsorted(self.ts, ts, "right")))
        # of several of one row the last one stays
        labels[self.rows[taken]] = self.labels[taken]
        weights[self.rows[taken]] = self.weights[taken]
        return labels, weights


@dataclass(frozen=True, slots=True)
class LogArrays:
    """All of a log.

    Attributes:
        name: of the log.
        user_ids: the text of each user's code, rising.
        item_ids: the same of items.
        impressions: one a row of every evaluation.
        clicks: actions of positive kinds that came in time, of each impression the first of a kind.
        click_rows: int64 [k], the impression of each of them.
        labels: uint8 [n], 1 or 0, by all actions that came in time.
        weights: float32 [n], of the labels.
        decisions: when the labels became known.
        wait_ms: how long after its impression a sample is learnt; None: the default.
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
    click_rows: NDArray[np.int64]
    labels: NDArray[np.uint8]
    weights: NDArray[np.float32]
    decisions: Decisions
    catalogue: Catalogue
    contexts: list[Mapping[str, Any] | None]
    positions: NDArray[np.int32]
    sampling_rate: float = 1.0
    wait_ms: int | None = None

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
    labelling = _Labelling(source.actions)
    contexts: list[Mapping[str, Any] | None] = []
    positions: list[int] = []
    click_rows: list[int] = []
    open_rows: dict[tuple[str | None, str, str], int] = {}
    for number, event in enumerate(source.events(0, stop)):
        if progress is not None and number % _REPORT == 0:
            progress(number / stop)
        pair = (event.user_id, event.item_id)
        row = open_rows.get((event.request_id, *pair))
        if isinstance(event, Click):
            # as in the job: neither an action without an impression nor a second of its kind counts
            if row is None or not 0 <= event.ts - shown.ts[row] <= window:
                continue
            if labelling.take(row, event.action or CLICK, event.ts):
                clicked.add(event)
                click_rows.append(row)
        elif row is None:
            open_rows[event.request_id, *pair] = open_rows[None, *pair] = len(positions)
            shown.add(event)
            contexts.append(event.context)
            positions.append(-1 if event.position is None else event.position)
    if not positions:
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
    clicks, click_order = clicked.coded(users, items)
    place = np.argsort(order)
    decisions = labelling.decisions(place)
    labels, weights = decisions.as_of(len(order), np.iinfo(np.int64).max)
    return LogArrays(
        name=source.name,
        user_ids=user_ids,
        item_ids=item_ids,
        impressions=impressions,
        clicks=clicks,
        click_rows=place[np.array(click_rows, np.int64)][click_order],
        labels=labels,
        weights=weights,
        decisions=decisions,
        catalogue=catalogue,
        contexts=[contexts[at] for at in order.tolist()] if any(contexts) else [],
        positions=np.array(positions, np.int32)[order],
        sampling_rate=source.sampling_rate,
        wait_ms=source.wait_ms,
    )


class _Labelling:
    """What actions say of their impressions, in the order in which they come."""

    def __init__(self, kinds: Mapping[str, ActionKind]) -> None:
        self._kinds = kinds
        self._taken: set[tuple[int, str]] = set()
        self._state: dict[int, tuple[int, float]] = {}
        self._changes: list[tuple[int, int, int, float]] = []

    def take(self, row: int, action: str, ts: int) -> bool:
        """Take in an action on an impression; whether it is the first of a positive kind."""
        kind = self._kinds.get(action)
        if kind is None or kind.label is None or (row, action) in self._taken:
            return False
        self._taken.add((row, action))
        decided = self._state.get(row)
        new = (kind.label, kind.weight)
        if decided is None or kind.weight >= decided[1]:
            self._state[row] = new
            if new != (decided or _UNLABELLED):
                self._changes.append((row, ts, *new))
        return kind.label == 1

    def decisions(self, place: NDArray[np.int64]) -> Decisions:
        """All changes by time; ``place`` [n] is the current position of each impression."""
        rows, ts, labels, weights = (
            zip(*self._changes, strict=True) if self._changes else ((), (), (), ())
        )
        times = np.array(ts, np.int64)
        order = np.argsort(times, kind="stable")
        return Decisions(
            place[np.array(rows, np.int64)][order],
            times[order],
            np.array(labels, np.uint8)[order],
            np.array(weights, np.float32)[order],
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
