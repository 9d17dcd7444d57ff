"""A simulated log as files, for ``replay`` and the benches.

``log.toml`` declares them. ``impressions.parquet``, ``actions.parquet``, ``items.parquet`` and
``users.parquet`` are what a system may know: each event with the time that it claims (``ts``) and
the time at which it arrived (``arrival``), both in ms since 1970; what was delivered twice is there
twice, what was lost is missing. ``truth.parquet`` is what no system knows: a row an impression,
lost ones included.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.simulator.behaviour import Flags
from bench.simulator.declare_log import (
    ACTIONS_FILE,
    DECLARATION_FILE,
    IMPRESSIONS_FILE,
    ITEMS_FILE,
    USERS_FILE,
    write_declaration,
)
from bench.simulator.delivery import Deliveries
from bench.simulator.draws import Ints
from bench.simulator.policy_log import SimulatedChunk
from bench.simulator.world import DAY_MS, DEVICES, HOUR_MS, PAGES, SimulatedRequests, SimulatedWorld
from settings.errors import LogFileError

TRUTH_FILE = "truth.parquet"
# events of every simulated log begin then, unless it was driven live: 2024-01-01
START_MS = 1_704_067_200_000


@dataclass(frozen=True, slots=True)
class WrittenLog:
    """How much was written: rows of both files, lost events, and second arrivals."""

    impressions: int
    actions: int
    lost: int
    repeated: int


def user_id(row: int) -> str:
    """The id of a user's row."""
    return f"u{row}"


def item_id(row: int) -> str:
    """The id of an item's row."""
    return f"i{row}"


def item_attributes(world: SimulatedWorld, row: int) -> dict[str, str | list[str]]:
    """An item's attributes in the catalogue."""
    return {
        "category": f"c{world.items.category[row]}",
        "tags": [f"t{tag}" for tag in world.items.tags[row]],
    }


def user_attributes(world: SimulatedWorld, row: int) -> dict[str, str | list[str]]:
    """A user's attributes in the profile."""
    return {"segment": f"s{world.users.segment[row]}"}


def request_context(requests: SimulatedRequests, row: int) -> dict[str, str]:
    """The context that the application sends with a request."""
    return {
        "device": DEVICES[requests.device[row]],
        "page": PAGES[requests.page[row]],
        "hour": str(requests.ts[row] % DAY_MS // HOUR_MS),
    }


class SimulatedLogWriter:
    """Writes chunks to a folder as they come; use as a context manager.

    Args:
        folder: made if it is not there; files of another log in it are overwritten.
        world: of the chunks.
        name: that the log is declared by.
        start_ms: the time since 1970 at which the world begins.

    Raises:
        LogFileError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, world: SimulatedWorld, name: str, start_ms: int = START_MS
    ) -> None:
        self._folder = folder
        self._name = name
        self._world = world
        self._start_ms = start_ms
        self._kinds = pa.array(list(world.settings.actions))
        self._files: dict[str, Any] = {}
        self._stack = ExitStack()
        self._written = dict.fromkeys(WrittenLog.__slots__, 0)

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write_catalogue()
            write_declaration(self._folder / DECLARATION_FILE, self._world.settings, self._name)
        except OSError as error:
            raise LogFileError(f"{error.filename or self._folder}: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def written(self) -> WrittenLog:
        """So far."""
        return WrittenLog(**self._written)

    def write(self, chunk: SimulatedChunk) -> None:
        """Append a chunk to all files."""
        requests, shown, start = chunk.requests, chunk.shown, self._start_ms
        width = shown.items.shape[1]
        of = np.repeat(np.arange(len(requests)), width)
        position = np.tile(np.arange(width), len(requests))
        columns = self._event_columns(requests, of, shown.items.ravel())
        truth = {
            **columns,
            "position": position,
            "probability": shown.probability.ravel(),
            "seen_probability": shown.seen_probability.ravel(),
            "examined": shown.examined.ravel(),
            "clicked": shown.clicked.ravel(),
            "lost": chunk.impressions.lost,
            "shown_at": requests.ts[of] + start,
        }
        self._append(TRUTH_FILE, truth)
        more = {"position": position, **self._context_columns(requests, of)}
        self._deliver(IMPRESSIONS_FILE, "impressions", {**columns, **more}, chunk.impressions)

        done, keys = chunk.actions, chunk.action_keys
        columns = self._event_columns(requests, done.request, keys.item)
        action = self._kinds.take(pa.array(done.kind))
        event_id = pc.binary_join_element_wise(
            columns["request_id"], columns["item_id"], action, ":"
        )
        columns |= {
            "event_id": event_id,
            "action": action,
            "value": pa.array(done.value, mask=np.isnan(done.value)),
        }
        self._deliver(ACTIONS_FILE, "actions", columns, chunk.action_deliveries)

    def _deliver(
        self, file: str, counted: str, columns: Mapping[str, Any], deliveries: Deliveries
    ) -> None:
        """Write what arrived, then what arrived again."""
        arrived = ~deliveries.lost
        again = deliveries.again >= 0
        for which, arrival in ((arrived, deliveries.arrival), (again, deliveries.again)):
            times = {"ts": deliveries.stamp + self._start_ms, "arrival": arrival + self._start_ms}
            self._append(file, {**columns, **times}, which)
        self._written[counted] += int(arrived.sum() + again.sum())
        self._written["lost"] += int(deliveries.lost.sum())
        self._written["repeated"] += int(again.sum())

    def _event_columns(self, requests: SimulatedRequests, of: Ints, items: Ints) -> dict[str, Any]:
        return {
            "request_id": _ids("r", requests.number[of]),
            "user_id": _ids("u", requests.user[of]),
            "item_id": _ids("i", items),
        }

    def _context_columns(self, requests: SimulatedRequests, of: Ints) -> dict[str, Any]:
        return {
            "device": pa.array(DEVICES).take(pa.array(requests.device[of])),
            "page": pa.array(PAGES).take(pa.array(requests.page[of])),
            "hour": requests.ts[of] % DAY_MS // HOUR_MS,
        }

    def _write_catalogue(self) -> None:
        items, users = self._world.items, self._world.users
        rows = range(len(items))
        pq.write_table(
            pa.table(
                {
                    "item_id": _ids("i", np.arange(len(items))),
                    "category": [item_attributes(self._world, row)["category"] for row in rows],
                    "tags": [item_attributes(self._world, row)["tags"] for row in rows],
                    "price": items.price,
                    "published": items.born + self._start_ms,
                }
            ),
            self._folder / ITEMS_FILE,
        )
        pq.write_table(
            pa.table(
                {
                    "user_id": _ids("u", np.arange(len(users))),
                    "segment": [
                        user_attributes(self._world, row)["segment"] for row in range(len(users))
                    ],
                }
            ),
            self._folder / USERS_FILE,
        )

    def _append(self, file: str, columns: Mapping[str, Any], which: Flags | None = None) -> None:
        table = pa.table(dict(columns))
        if which is not None:
            table = table.filter(pa.array(which))
        if file not in self._files:
            path = self._folder / file
            self._files[file] = self._stack.enter_context(pq.ParquetWriter(path, table.schema))
        self._files[file].write_table(table)


def _ids(prefix: str, numbers: Ints) -> Any:  # noqa: ANN401 - pyarrow has no types
    return pc.binary_join_element_wise(prefix, pc.cast(pa.array(numbers), pa.string()), "")
