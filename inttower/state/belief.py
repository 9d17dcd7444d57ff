"""The table of user beliefs: a Gaussian a user, now and as of the time of any open impression.

The update of one belief is in :mod:`inttower.state.kalman`. This module adds users, time and
eviction: a full table evicts the users without an outcome for longest.

**Time.** Outcomes are learnt in the order in which they close (their label is known). A model that
learns from an outcome must see the user's belief as of its *impression*: with every outcome that
had closed by then, and none that closed later. So before each instant at which a user learns, the
mean from before it is written to a log, which reaches back as far as an impression can be open.
:meth:`Beliefs.as_of` goes back from the current mean through this log. The answer is the same
before and after later outcomes are learnt, so a batch may be learnt as a whole and its rows read
afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inttower.errors import StateError
from inttower.state.belief_kernels import (
    NEVER,
    BeliefTable,
    Log,
    Moments,
    OutcomeArrays,
    Rows,
    by_instant,
    learn_rows,
    look_back,
)
from inttower.state.kalman import variances

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class DriftRates:
    """How fast a belief drifts: what is added to the diagonal of S.

    Args:
        name: shown in reports.
        drift: after each outcome, on all dimensions but the first.
        drift_first: the same on dimension 0, the user's general click rate.
        gap: at an outcome that comes after a gap, on all dimensions but the first.
        gap_first: the same on dimension 0.
    """

    name: str
    drift: float = 0.0
    drift_first: float = 0.0
    gap: float = 0.0
    gap_first: float = 0.0


SLOW = DriftRates("slow")
MEDIUM = DriftRates("medium", drift=1e-2, drift_first=3e-3, gap_first=0.3)
FAST = DriftRates("fast", drift=5e-2, drift_first=2e-2, gap=0.3, gap_first=0.3)


@dataclass(frozen=True, slots=True)
class BeliefConfig:
    """Shape and bounds of a table of beliefs.

    Args:
        size: numbers in a vector, as the factors have.
        speeds: one belief a user for each.
        variance: variance of a new user's vector around its prior mean.
        gap_ms: time without an outcome that counts as a gap.
        window_ms: the longest time from an impression to the closing of its sample:
            :meth:`Beliefs.as_of` reaches this far back from the newest outcome.
        max_users: most users; a full table evicts a sixteenth of them, those without an outcome
            for longest.
    """

    size: int = 32
    speeds: tuple[DriftRates, ...] = (MEDIUM,)
    variance: float = 2.5
    gap_ms: int = 30 * 60_000
    window_ms: int = 10 * 60_000
    max_users: int = 1_000_000


class Learnt(NamedTuple):
    """The belief about each row's logit just before its instant was learnt.

    ``z`` is its mean and ``h`` its variance, float32 [n, speeds].
    """

    z: Floats
    h: Floats


class Beliefs:
    """A table of users' beliefs, by text id.

    >>> beliefs = Beliefs(BeliefConfig(size=2))
    >>> prior, v = np.zeros((1, 2)), np.array([[1.0, 0.5]])
    >>> before = beliefs.learn(["ann"], [1000], labels=[1], v=v, b=[0.0], prior=prior)
    >>> before.z.item(), before.h.item()
    (0.0, 3.125)
    >>> beliefs.as_of(["ann"], [999], prior)
    array([[[0., 0.]]], dtype=float32)
    >>> beliefs.as_of(["ann"], [1000], prior).round(2)
    array([[[0.76, 0.38]]], dtype=float32)
    """

    def __init__(self, config: BeliefConfig = BeliefConfig()) -> None:
        self.config = config
        self._speeds = np.array(
            [[s.drift, s.drift_first, s.gap, s.gap_first] for s in config.speeds]
        )
        self._rows: dict[str, int] = {}
        self._ids: list[str | None] = []  # by row; None where a user was evicted
        self._free: list[int] = []
        self._table = self._empty_table(16)
        self._log = self._empty_log(_room_for(0))
        self._head = self._tail = 0
        self._frontier = self._horizon = NEVER

    def __len__(self) -> int:
        """How many users are held."""
        return len(self._rows)

    @property
    def frontier(self) -> int | None:
        """The newest time learnt, or None."""
        return None if self._frontier == NEVER else self._frontier

    def learn(
        self,
        users: Sequence[str],
        closed_ts: npt.ArrayLike,
        *,
        labels: npt.ArrayLike,
        v: npt.ArrayLike,
        b: npt.ArrayLike,
        prior: npt.ArrayLike,
    ) -> Learnt:
        """Learn outcomes in the order of their closing times, and of the rows where those tie.

        All rows of one user and instant are scored before any of them is learnt. Give all rows of
        an instant in one call if you need the returned scores; the beliefs do not depend on it.

        Args:
            users: n ids.
            closed_ts: int [n], none earlier than the newest time learnt before.
            labels: [n], 0 or 1; or a correction, ``FROM_NEGATIVE`` or ``FROM_POSITIVE``.
            v: item vectors [n, p].
            b: item biases [n].
            prior: [n, p], W d of each row's user; read for new users.

        Raises:
            StateError: times that go back.
        """
        at = np.asarray(closed_ts, np.int64)
        z = np.empty((len(at), len(self._speeds)), np.float32)
        learnt = Learnt(z, z.copy())
        given = OutcomeArrays(
            at,
            np.asarray(labels, np.float64),
            np.asarray(v, np.float64),
            np.asarray(b, np.float64),
            np.asarray(prior, np.float32),
        )
        if len(at) and (first := int(at.min())) < self._frontier:
            # false for any time before the first outcome
            raise StateError(
                f"an outcome closed at {first}, but outcomes up to {self._frontier} were learnt:"
                " give them in the order of closed_ts"
            )
        for index in self._parts(users, at):
            some = [users[k] for k in index]
            part = self._learn(some, given.of(index))
            learnt.z[index], learnt.h[index] = part
        return learnt

    def _parts(self, users: Sequence[str], at: Ints) -> Iterator[Ints]:
        """Cut rows into parts, in the order of time, none with more users than the table holds."""
        if len(set(users)) <= self.config.max_users:
            if len(at):
                yield np.arange(len(at))
            return
        present: set[str] = set()
        part: list[int] = []
        for k in np.argsort(at, kind="stable").tolist():
            if users[k] not in present and len(present) == self.config.max_users:
                yield np.array(part)
                present, part = set(), []
            present.add(users[k])
            part.append(k)
        yield np.array(part)

    def _learn(self, users: Sequence[str], given: OutcomeArrays) -> Learnt:
        at = given.at
        self._forget(int(at.min()) - self.config.window_ms)
        row = self._admit(users, given.prior)
        self._make_room(len(at))
        order = by_instant(row, at)
        rows = Rows(row[order], at[order], given.y[order], given.v[order], given.b[order])
        limits = np.array([self.config.gap_ms, self._head])
        self._head, z, h = learn_rows(self._table, self._log, rows, self._speeds, limits)
        self._frontier = int(at.max())
        back = np.argsort(order)
        return Learnt(z[back], h[back])

    def as_of(self, users: Sequence[str], ts: npt.ArrayLike, prior: npt.ArrayLike) -> Floats:
        """Means with every outcome that closed at or before ``ts``, and with no other.

        Exact once the outcomes that closed up to ``ts`` have been learnt. A sample closes after its
        impression, so its own batch may be learnt before or after this call.

        Args:
            users: n ids; an unknown user has its prior mean.
            ts: int [n], the impressions' times.
            prior: [n, p], W d of each row's user.

        Returns:
            float32 [n, speeds, p].

        Raises:
            StateError: a time further back than the log of means.
        """
        at = np.asarray(ts, np.int64)
        if len(at) and at.min() < self._horizon:
            raise StateError(
                f"there is no state as of {int(at.min())}: the log reaches back to {self._horizon}:"
                " raise window_ms to the longest time from an impression to its closing"
            )
        row = np.array([self._rows.get(user, -1) for user in users], np.int64)
        out = np.repeat(np.asarray(prior, np.float32)[:, None, :], len(self._speeds), axis=1)
        look_back(self._table, self._log, Moments(row, at), self._tail, out)
        return out

    @property
    def horizon(self) -> int:
        """The earliest time that :meth:`as_of` still answers for."""
        return self._horizon

    def variances(self, user: str, v: npt.ArrayLike) -> Floats:
        """Variance of the logit of items [N, p] for one user, as of now: float32 [N, speeds]."""
        items = np.asarray(v, np.float64)
        row = self._rows.get(user)
        if row is None:
            new = self.config.variance * np.sum(items**2, axis=1, keepdims=True)
            return np.repeat(new.astype(np.float32), len(self._speeds), axis=1)
        return variances(self._table.cov[row], items)

    def expire(self, before_ts: int) -> list[str]:
        """Evict the users without an outcome since ``before_ts``; returns their ids."""
        return self._evict([r for r in self._rows.values() if self._table.last[r] < before_ts])

    def state(self) -> dict[str, Array | bytes]:
        """Everything learnt, as plain arrays.

        Equal outcomes in equal order give equal bytes, however they were cut into calls, as long as
        no user was evicted.
        """
        used = len(self._ids)
        horizon = NEVER if self._frontier == NEVER else self._frontier - self.config.window_ms
        numbers = np.arange(self._first_after(horizon), self._head)
        slots = numbers % len(self._log.at)
        return {
            "ids": json.dumps(self._ids).encode(),
            "free": np.array(self._free, np.int64),
            "clock": np.array([self._head, self._frontier]),
            **{f"table.{k}": a[:used].copy() for k, a in self._table._asdict().items()},
            **{f"log.{k}": a[slots] for k, a in self._log._asdict().items()},
        }

    def load_state(self, state: Mapping[str, Array | bytes]) -> None:
        """Take over what :meth:`state` gave; the config must be the one it was learnt with.

        Raises:
            StateError: arrays of another shape than the config's.
        """
        ids: list[str | None] = json.loads(bytes(state["ids"]))
        arrays = {name: np.asarray(a) for name, a in state.items() if name != "ids"}
        table = self._empty_table(len(ids))
        for name, array in table._asdict().items():
            if arrays[f"table.{name}"].shape != array.shape:
                raise StateError(
                    f"saved beliefs have {name} of shape {arrays[f'table.{name}'].shape}, the"
                    f" config asks for {array.shape}: give the config they were learnt with"
                )
            array[:] = arrays[f"table.{name}"]
        self._ids, self._free = ids, arrays["free"].tolist()
        self._rows = {user: row for row, user in enumerate(ids) if user is not None}
        self._head, self._frontier = (int(x) for x in arrays["clock"])
        self._tail = self._head - len(arrays["log.at"])
        self._horizon = NEVER
        if self._frontier != NEVER:
            self._horizon = self._frontier - self.config.window_ms
        numbers = np.arange(self._tail, self._head)
        self._table, self._log = table, self._empty_log(_room_for(len(numbers)))
        for name, array in self._log._asdict().items():
            array[numbers % len(self._log.at)] = arrays[f"log.{name}"]

    def _first_after(self, horizon: int) -> int:
        """Number of the first log entry that a call of as_of can still read."""
        number = self._tail
        while number < self._head and self._log.at[number % len(self._log.at)] <= horizon:
            number += 1
        return number

    def _forget(self, horizon: int) -> None:
        """Drop log entries that no call of as_of can read any more."""
        self._tail = self._first_after(horizon)
        self._horizon = max(self._horizon, horizon)

    def _make_room(self, entries: int) -> None:
        """Make room for so many more entries of the log."""
        numbers = np.arange(self._tail, self._head)
        room = _room_for(len(numbers) + entries)
        if room <= len(self._log.at):
            return
        old, self._log = self._log, self._empty_log(room)
        for name, array in old._asdict().items():
            getattr(self._log, name)[numbers % room] = array[numbers % len(old.at)]

    def _admit(self, users: Sequence[str], prior: Floats) -> Ints:
        """The rows of users; new users get one."""
        row = np.array([self._rows.get(user, -1) for user in users], np.int64)
        new: list[int] = []
        for i in np.flatnonzero(row < 0):
            user = users[i]
            if user not in self._rows:
                self._rows[user] = self._take_row(users)
                self._ids[self._rows[user]] = user
                new.append(i)
            row[i] = self._rows[user]
        fresh = row[new]
        self._table.mean[fresh] = prior[new, None, :]
        self._table.cov[fresh] = 0.0
        diagonal = np.cumsum(np.arange(1, self.config.size + 1)) - 1
        self._table.cov[fresh[:, None], :, diagonal] = self.config.variance
        self._table.last[fresh] = NEVER
        self._table.newest[fresh] = -1
        return row

    def _take_row(self, present: Sequence[str]) -> int:
        """A free row; the table grows up to its bound, then evicts."""
        if not self._free and len(self._ids) >= self.config.max_users:
            self._evict(self._longest_unseen(present))
        if self._free:
            return self._free.pop()
        if len(self._ids) == len(self._table.last):
            old = self._table
            self._table = self._empty_table(min(max(16, 2 * len(old.last)), self.config.max_users))
            for name, array in old._asdict().items():
                getattr(self._table, name)[: len(array)] = array
        self._ids.append(None)
        return len(self._ids) - 1

    def _longest_unseen(self, present: Sequence[str]) -> list[int]:
        """A sixteenth of the rows, those without an outcome for the longest time."""
        stay = {self._rows[user] for user in present if user in self._rows}
        rows = np.array([row for row in range(len(self._ids)) if row not in stay], np.int64)
        oldest = np.argsort(self._table.last[rows], kind="stable")
        return [int(row) for row in rows[oldest][: max(1, self.config.max_users // 16)]]

    def _evict(self, rows: Sequence[int]) -> list[str]:
        gone = [user for row in rows if (user := self._ids[row]) is not None]
        for row, user in zip(rows, gone, strict=True):
            del self._rows[user]
            self._ids[row] = None
        self._free.extend(sorted(rows, reverse=True))
        return gone

    def _empty_table(self, capacity: int) -> BeliefTable:
        p, speeds = self.config.size, len(self.config.speeds)
        return BeliefTable(
            mean=np.zeros((capacity, speeds, p), np.float32),
            cov=np.zeros((capacity, speeds, p * (p + 1) // 2), np.float32),
            last=np.full(capacity, NEVER),
            newest=np.full(capacity, -1, np.int64),
        )

    def _empty_log(self, length: int) -> Log:
        return Log(
            row=np.zeros(length, np.int64),
            at=np.zeros(length, np.int64),
            before=np.zeros(length, np.int64),
            mean=np.zeros((length, len(self.config.speeds), self.config.size), np.float32),
        )


def _room_for(entries: int) -> int:
    """Length of a log for so many entries: a power of two, so that it seldom grows."""
    return 1 << max(4, (entries - 1).bit_length())
