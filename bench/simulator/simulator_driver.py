"""The driver: calls a running system over HTTP like an application.

For each request of the world, when it is due: ask for a ranking, show a part of it, post what was
shown and, later, what was done. Requests do not wait for one another, so a slow system meets the
same load. Everything is posted when it arrives, which is not when it happened.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.simulator.behaviour import keep_shown, show
from bench.simulator.delivery import Deliveries
from bench.simulator.draws import Ints, Purpose, uniform
from bench.simulator.driver_messages import (
    action_body,
    filled,
    impression_body,
    own_order,
    served_ranking,
)
from bench.simulator.log_files import (
    item_attributes,
    item_id,
    request_context,
    user_attributes,
    user_id,
)
from bench.simulator.policy_log import happen
from bench.simulator.system_client import SystemClient, SystemRefusalError, refused_event
from bench.simulator.traffic import (
    DrivenTraffic,
    SentEvent,
    ServedRanking,
    ShownSlate,
    WorldClock,
)
from bench.simulator.world import SimulatedWorld

_TICK_S = 0.01
_POST_EVENTS = 500
_POST_ENTITIES = 500
# a post that the system cannot take now is tried again, as an application's queue would
_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
_IN_FLIGHT = 256

Progress = Callable[[DrivenTraffic, float], None]


@dataclass(order=True, slots=True)
class _Due:
    """An event that arrives at ``at`` (wall, ms since 1970).

    ``prompt``: it arrives for the first time and was not held up.
    """

    at: float
    number: int
    event: SentEvent
    body: dict[str, Any]
    prompt: bool


class SimulatorDriver:
    """One run of a world against a system.

    Args:
        world: its requests are asked for.
        client: of the system.
        speed: the world's seconds in one of ours; everything is stamped with our time.
        run: begins every request id, so that no two runs share one.
        compare: part of the requests that every channel is asked to rank, without a trace.
        compare_with: the channels for that.
        progress: called about ten times a second with the counts and the part that is done.
        on_action: called with each action that was not delayed, as it is posted: its event id, and
            the time (ms since 1970).
    """

    def __init__(
        self,
        world: SimulatedWorld,
        client: SystemClient,
        *,
        speed: float = 1.0,
        run: str = "",
        compare: float = 0.0,
        compare_with: tuple[str, ...] = (),
        progress: Progress | None = None,
        on_action: Callable[[SentEvent, str, int], None] | None = None,
    ) -> None:
        self._world = world
        self._client = client
        self._compare = compare
        self._compare_with = compare_with
        self._progress = progress
        self._on_action = on_action
        self._run_name = run or f"{time.time_ns() // 1_000_000:x}"
        self._traffic = DrivenTraffic(WorldClock(0, speed))
        self._speed = speed
        self._answers: list[tuple[int, ServedRanking]] = []
        self._due: list[_Due] = []
        self._numbered = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_IN_FLIGHT)
        self._catalogue_at = {"items": 0, "users": 0}
        self._outage_ends = {
            int(1000 * outage.start_s) + int(1000 * outage.seconds)
            for outage in world.settings.delivery.outages
        }
        self._user_order = np.argsort(world.users.joined, kind="stable")

    async def run(self) -> DrivenTraffic:
        """Upload the catalogue, ask every request, and wait until the last event has arrived.

        Raises:
            SystemRefusalError: the catalogue is refused.
        """
        await self._upload(0.0)
        began = time.monotonic()
        self._traffic.clock = WorldClock(time.time_ns() // 1_000_000, self._speed)
        next_row, finished, told = 0, False, 0.0
        while not finished:
            now = self._now()
            world_now = self._traffic.clock.world(now)
            next_row = self._ask_due(next_row, world_now)
            self._show_answered()
            self._post_due(now)
            if self._catalogue_due(world_now):
                self._spawn(self._upload(world_now))
            finished = (
                next_row == len(self._world) and not self._due and not self._tasks
            ) and not self._answers
            if time.monotonic() - told > 0.1 or finished:
                self._reap()
                told = time.monotonic()
                self._traffic.seconds = told - began
                if self._progress:
                    self._progress(self._traffic, next_row / len(self._world))
            await asyncio.sleep(_TICK_S)
        return self._traffic

    def _now(self) -> float:
        return time.time_ns() / 1_000_000

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(work))

    def _reap(self) -> None:
        """Forget what is done; an error in it is ours and ends the run."""
        for task in [task for task in self._tasks if task.done()]:
            self._tasks.discard(task)
            task.result()

    def _ask_due(self, row: int, world_now: float) -> int:
        """Begin the requests that are due; the row of the next one."""
        stop = int(np.searchsorted(self._world.requests.ts, world_now, side="right"))
        if stop > row:
            late = (world_now - float(self._world.requests.ts[row])) / self._speed / 1000
            self._traffic.behind_s = max(self._traffic.behind_s, late)
            requests = self._world.requests.part(row, stop)
            candidates = self._world.candidates(requests)
            for number in range(stop - row):
                self._spawn(self._ask(row + number, candidates[number]))
        return stop

    async def _ask(self, row: int, candidates: Ints) -> None:
        requests, slate = self._world.requests, self._world.settings.slate
        body = {
            "user_id": user_id(int(requests.user[row])),
            "candidates": [item_id(item) for item in candidates.tolist()],
            "k": slate.returned,
            "context": request_context(requests, row),
            "request_id": self._request_id(row),
        }
        async with self._slots:
            try:
                answer = await self._client.rank(body)
            except SystemRefusalError:
                self._traffic.unanswered += 1
                self._answers.append((row, own_order(row, candidates[: slate.returned])))
                return
            ranking = served_ranking(row, answer)
            self._traffic.rankings.append(ranking)
            self._answers.append((row, filled(ranking, candidates, slate.returned)))
            if not self._compare_with or not self._is_compared(row):
                return
            for channel in self._compare_with:
                other = {
                    **body,
                    "channel": channel,
                    "request_id": f"{self._request_id(row)}-{channel}",
                }
                with suppress(SystemRefusalError):  # counted by the client
                    self._traffic.compared.append(
                        served_ranking(row, await self._client.rank(other))
                    )

    def _is_compared(self, row: int) -> bool:
        number = int(self._world.requests.number[row])
        return bool(uniform(self._world.seed, Purpose.COMPARE, number) < self._compare)

    def _show_answered(self) -> None:
        """Show a part of each answer that has come, and see what is done about it."""
        if not self._answers:
            return
        answers, self._answers = self._answers, []
        rows = np.array([row for row, _ in answers])
        requests = self._world.requests.rows(rows)
        returned = np.stack([ranking.items for _, ranking in answers])
        kept = keep_shown(self._world, requests, returned, self._world.logits(requests, returned))
        items = np.take_along_axis(returned, kept, axis=1)
        at = int(self._traffic.clock.world(self._now()))
        shown = show(self._world, requests, items)
        chunk = happen(self._world, requests, shown, np.full(len(rows), at))
        for number, (row, ranking) in enumerate(answers):
            scores = [ranking.scores[column] for column in kept[number].tolist()]
            self._traffic.slates.append(ShownSlate(row, at, items[number], scores))
        width = items.shape[1]
        for number in range(items.size):
            row, position = int(rows[number // width]), number % width
            event = self._event(row, int(items.flat[number]), "", chunk.impressions.stamp[number])
            context = request_context(self._world.requests, row)
            body = impression_body(event, position, context)
            self._plan(event, body, chunk.impressions.arrival[number], chunk.impressions, number)
        kinds = list(self._world.settings.actions)
        for number in range(len(chunk.actions)):
            row = int(rows[chunk.actions.request[number]])
            kind = kinds[int(chunk.actions.kind[number])]
            item = int(chunk.action_keys.item[number])
            event = self._event(row, item, kind, chunk.action_deliveries.stamp[number])
            body = action_body(event, float(chunk.actions.value[number]))
            arrival = chunk.action_deliveries.arrival[number]
            self._plan(event, body, arrival, chunk.action_deliveries, number)

    def _event(self, row: int, item: int, action: str, stamp: int) -> SentEvent:
        return SentEvent(
            request_id=self._request_id(row),
            item_id=item_id(item),
            user_id=user_id(int(self._world.requests.user[row])),
            action=action,
            ts=int(self._traffic.clock.wall(int(stamp))),
            sent_ms=0,
        )

    def _plan(
        self,
        event: SentEvent,
        body: dict[str, Any],
        arrival: int,
        deliveries: Deliveries,
        number: int,
    ) -> None:
        """Put an event on its way: never, once or twice."""
        if deliveries.lost[number]:
            return
        in_outage = deliveries.arrival[number] in self._outage_ends
        self._push(event, body, arrival, prompt=not (deliveries.late[number] or in_outage))
        if deliveries.again[number] >= 0:
            self._push(event, body, deliveries.again[number], prompt=False)

    def _push(self, event: SentEvent, body: dict[str, Any], arrival: int, *, prompt: bool) -> None:
        self._numbered += 1
        at = self._traffic.clock.wall(int(arrival))
        heapq.heappush(self._due, _Due(at, self._numbered, event, body, prompt))

    def _post_due(self, now: float) -> None:
        batch: list[_Due] = []
        while self._due and self._due[0].at <= now:
            batch.append(heapq.heappop(self._due))
            if len(batch) == _POST_EVENTS:
                self._spawn(self._post(batch))
                batch = []
        if batch:
            self._spawn(self._post(batch))

    async def _post(self, batch: list[_Due]) -> None:
        """Post events; one that is refused is left out, and the rest is posted again."""
        waits: Iterator[float] = iter(_AGAIN_S)
        if self._on_action:
            now = int(self._now())
            for due in batch:
                if due.prompt and due.event.action:
                    self._on_action(due.event, due.body["event_id"], now)
        while batch:
            impressions = [due for due in batch if not due.event.action]
            actions = [due for due in batch if due.event.action]
            try:
                async with self._slots:
                    await self._client.post_events(
                        [due.body for due in impressions], [due.body for due in actions]
                    )
            except SystemRefusalError as error:
                at_fault = refused_event(error)
                if at_fault is not None:
                    kind, number = at_fault
                    refused = (impressions if kind == "impressions" else actions)[number]
                    batch = [due for due in batch if due is not refused]
                    self._traffic.gave_up[
                        f"{error.status} {kind} {error.place.rpartition('.')[2]}"
                    ] += 1
                    continue
                wait = next(waits, None)
                if wait is None or 400 <= error.status < 500:
                    self._traffic.gave_up[f"{error.status} {error.place}"] += len(batch)
                    return
                await asyncio.sleep(wait)
            else:
                self._sent(batch)
                return

    def _sent(self, batch: list[_Due]) -> None:
        now = int(self._now())
        for due in batch:
            event = SentEvent(
                due.event.request_id,
                due.event.item_id,
                due.event.user_id,
                due.event.action,
                due.event.ts,
                now,
            )
            self._traffic.sent.append(event)
            self._traffic.posted[event.action or "impression"] += 1

    def _catalogue_due(self, world_now: float) -> bool:
        return any(stop > self._catalogue_at[what] for what, stop in self._there(world_now).items())

    def _there(self, world_now: float) -> dict[str, int]:
        """How many items and users there are by now."""
        joined = self._world.users.joined[self._user_order]
        return {
            "items": int(np.searchsorted(self._world.items.born, world_now, side="right")),
            "users": int(np.searchsorted(joined, world_now, side="right")),
        }

    async def _upload(self, world_now: float) -> None:
        """Tell the system of items and users that have come."""
        for what, stop in self._there(world_now).items():
            first, self._catalogue_at[what] = self._catalogue_at[what], stop
            for start in range(first, stop, _POST_ENTITIES):
                rows = range(start, min(stop, start + _POST_ENTITIES))
                await self._client.upsert(what, [self._entity(what, row) for row in rows])

    def _entity(self, what: str, number: int) -> dict[str, Any]:
        if what == "items":
            return {"id": item_id(number), "attributes": item_attributes(self._world, number)}
        row = int(self._user_order[number])
        return {"id": user_id(row), "attributes": user_attributes(self._world, row)}

    def _request_id(self, row: int) -> str:
        return f"{self._run_name}-{int(self._world.requests.number[row])}"
