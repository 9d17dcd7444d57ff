"""Sampled negatives, for logs of clicks only: drawn from the items that were seen so far.

A sampled negative is not an impression that was shown. So that the future does not leak, it is an
item that some user clicked strictly before, and never one that this user has clicked so far.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from streaming.logs.log_file import SampledNegatives
from streaming.logs.stage import Stage

# redraws of an item that the user has clicked or that is drawn already
_TRIES = 200
_BATCH = 50_000


class NegativeSampler:
    """Draws items that were seen strictly before a moment.

    Args:
        settings: how many, how, and the seed.

    >>> sampler = NegativeSampler(SampledNegatives(per_click=2, power=0.0, seed=1))
    >>> sampler.draw("u", 10, ["a"])
    []
    >>> sampler.draw("v", 20, ["b"]), sampler.draw("u", 30, ["c"])
    (['a'], ['b'])
    """

    def __init__(self, settings: SampledNegatives) -> None:
        self._settings = settings
        self._random = random.Random(settings.seed)  # noqa: S311 - a seeded draw
        # clicks of each item
        self._seen: dict[str, int] = {}
        # an item is in it round(clicks ** power) times, so that a uniform draw is enough
        self._tickets: list[str] = []
        self._own: dict[str, set[str]] = defaultdict(set)
        self._moment: list[str] = []
        self._now = -1
        self._drawn = 0
        self._eligible = 0

    @property
    def rate(self) -> float:
        """Drawn negatives over the items that could have been drawn."""
        return self._drawn / self._eligible if self._eligible else 1.0

    def draw(self, user: str, ts: int, clicked: list[str]) -> list[str]:
        """Negatives for the clicks of one user at one moment; moments must rise.

        Returns:
            Different items, as many a click as the settings say, or fewer if there are no more.
        """
        if ts != self._now:
            self._close()
            self._now = ts
        own = self._own[user]
        own.update(clicked)
        self._moment += clicked
        wanted = self._settings.per_click * len(clicked)
        tickets, chance, seen = self._tickets, self._random.random, self._seen
        free = len(seen)
        if free <= wanted + len(own):  # else there are enough, whichever the user's own are
            free -= sum(item in seen for item in own)
        found: dict[str, None] = {}
        enough = min(wanted, free)
        for _ in range(_TRIES * wanted):
            if len(found) >= enough:
                break
            item = tickets[int(chance() * len(tickets))]
            if item not in own:
                found[item] = None
        self._drawn += len(found)
        self._eligible += max(len(seen) - len(own), len(found))
        return list(found)

    def _close(self) -> None:
        """Count the items of the last moment as seen."""
        for item in self._moment:
            clicks = self._seen[item] = self._seen.get(item, 0) + 1
            wanted = round(clicks**self._settings.power)
            if clicks == 1 or wanted > round((clicks - 1) ** self._settings.power):
                self._tickets.append(item)
        self._moment.clear()


class SampledRows:
    """Writes the events of a log of clicks with sampled negatives.

    Args:
        stage: rows of clicks, each with its request's id (view ``rows``).
        settings: of the negatives.
        kinds: of actions, the click first.
    """

    def __init__(self, stage: Stage, settings: SampledNegatives, kinds: list[str]) -> None:
        self._stage = stage
        self._sampler = NegativeSampler(settings)
        self._kinds = kinds

    def write(self, path: Path, group: int) -> float:
        """Write the file; returns the share of the not clicked that was drawn."""
        context = bool(self._stage.log.events.context)
        fields = [("ts", pa.int64()), ("kind", pa.int16())]
        fields += [(name, pa.string()) for name in ("user_id", "item_id", "request_id")]
        if context:
            fields.append(("context", pa.string()))
        schema = pa.schema(fields)
        with pq.ParquetWriter(path, schema) as writer:
            waiting: list[tuple[Any, ...]] = []
            for row in self._events():
                waiting.append(row if context else row[:5])
                if len(waiting) >= group:
                    writer.write_table(_table(waiting, schema), row_group_size=group)
                    waiting.clear()
            if waiting:
                writer.write_table(_table(waiting, schema), row_group_size=group)
        return self._sampler.rate

    def _events(self) -> Iterator[tuple[Any, ...]]:
        hits = [at for at, name in enumerate(self._kinds) if name != "click"]
        more = "".join(f", hit{at}" for at in hits)
        reader = self._stage.connection.execute(
            f"SELECT ts, user_id, item_id, request_id, context{more} FROM rows"
            " ORDER BY ts, user_id, item_id, request_id"
        )
        click = self._kinds.index("click") + 1
        while rows := reader.fetchmany(_BATCH):
            for ts, user, item, request, context, *others in rows:
                yield ts, 0, user, item, request, context
                yield ts, click, user, item, request, None
                for at, hit in zip(hits, others, strict=True):
                    if hit:
                        yield ts, at + 1, user, item, request, None
                for negative in self._sampler.draw(user, ts, [item]):
                    yield ts, 0, user, negative, request, context


def _table(rows: list[tuple[Any, ...]], schema: Any) -> Any:  # noqa: ANN401 - untyped library
    columns = zip(*rows, strict=True)
    arrays = [pa.array(values, f.type) for values, f in zip(columns, schema, strict=True)]
    return pa.table(arrays, schema=schema)
