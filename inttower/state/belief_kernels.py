"""numba loops over the table of beliefs and the log of means; see :mod:`inttower.state.belief`.

Arrays of one length are grouped in named tuples, which numba can take apart.
:class:`inttower.state.belief.Beliefs` owns them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from inttower.core.kernels import kernel
from inttower.state.kalman import absorb, inflate, load, logistic_gain, project, save, shift

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NEVER = int(np.iinfo(np.int64).min)

# outcomes other than 0 and 1: a label that was learnt as 0 is 1, one that was learnt as 1 is 0
FROM_NEGATIVE, FROM_POSITIVE = 2, -1


class BeliefTable(NamedTuple):
    """The beliefs of all users; F speeds, p numbers, T = p (p + 1) / 2."""

    mean: Floats  # [capacity, F, p]
    cov: Floats  # [capacity, F, T], the lower triangle of S, row after row
    last: Ints  # [capacity], time of the newest outcome, NEVER when there is none
    newest: Ints  # [capacity], number of the user's newest entry of the log, or -1


class Log(NamedTuple):
    """Means before instants, in the order of time: a ring, entry k is at k mod length."""

    row: Ints  # [length], the user's row
    at: Ints  # [length], the instant
    before: Ints  # [length], number of the user's entry before this one, or -1
    mean: Floats  # [length, F, p], the user's means before the instant


class OutcomeArrays(NamedTuple):
    """What :meth:`inttower.state.belief.Beliefs.learn` is given, by row."""

    at: Ints
    y: Doubles
    v: Doubles
    b: Doubles
    prior: Floats

    def of(self, index: Ints) -> OutcomeArrays:
        """Some of the rows."""
        return OutcomeArrays(
            self.at[index], self.y[index], self.v[index], self.b[index], self.prior[index]
        )


class Rows(NamedTuple):
    """Outcomes in the order of (time, user): rows of one instant of one user are adjacent."""

    row: Ints
    at: Ints
    y: Doubles
    v: Doubles
    b: Doubles


class Moments(NamedTuple):
    """Which users, as of when; row -1 is an unknown user."""

    row: Ints
    at: Ints


def by_instant(row: Ints, at: Ints) -> Ints:
    """Order of rows by time, then by the first that a user has in its instant, then as given.

    So the rows of a user's instant are adjacent, and users enter the log in the same order however
    the stream is cut, even in the middle of an instant.
    """
    order = np.lexsort((row, at))
    starts = np.flatnonzero(np.r_[True, (np.diff(row[order]) != 0) | (np.diff(at[order]) != 0)])
    first = np.empty(len(row), np.int64)
    first[order] = np.repeat(order[starts], np.diff(np.r_[starts, len(row)]))
    whole: Ints = np.lexsort((first, at))
    return whole


@kernel
def remember(table: BeliefTable, log: Log, row: int, at: int, head: int) -> int:
    """Write the user's means to the log, once an instant; returns the next entry's number."""
    length = len(log.at)
    newest = table.newest[row]
    if newest >= 0 and log.at[newest % length] == at and log.row[newest % length] == row:
        return head
    slot = head % length
    log.row[slot], log.at[slot], log.before[slot] = row, at, newest
    log.mean[slot] = table.mean[row]
    table.newest[row] = head
    return head + 1


@kernel
def learn_rows(
    table: BeliefTable, log: Log, rows: Rows, speeds: Doubles, limits: Ints
) -> tuple[int, Floats, Floats]:
    """Learn rows; speeds [F, 4] as in DriftRates, limits = gap_ms, number of the next log entry."""
    n, p = rows.v.shape
    z, h = np.empty((n, len(speeds)), np.float32), np.empty((n, len(speeds)), np.float32)
    m, S, sv = np.empty(p), np.empty((p, p)), np.empty(p)
    gap_ms, head = limits[0], limits[1]
    start = 0
    while start < n:
        row, at = rows.row[start], rows.at[start]
        end = start + 1
        while end < n and rows.row[end] == row and rows.at[end] == at:
            end += 1
        head = remember(table, log, row, at, head)
        after_gap = table.last[row] != NEVER and at - table.last[row] > gap_ms
        table.last[row] = at
        for s in range(len(speeds)):
            load(table.mean[row, s], table.cov[row, s], m, S)
            if after_gap:
                inflate(S, speeds[s, 3], speeds[s, 2])
            for i in range(start, end):
                z_i, h_i = project(m, S, rows.v[i], sv)
                z[i, s], h[i, s] = rows.b[i] + z_i, h_i
            for i in range(start, end):
                z_i, h_i = project(m, S, rows.v[i], sv)
                if rows.y[i] == FROM_NEGATIVE or rows.y[i] == FROM_POSITIVE:
                    shift(m, sv, 1.0 if rows.y[i] == FROM_NEGATIVE else -1.0)
                    continue
                gain, residual = logistic_gain(rows.b[i] + z_i, h_i, rows.y[i] - 0.5)
                absorb(m, S, sv, gain, residual)
                inflate(S, speeds[s, 1], speeds[s, 0])
            save(table.mean[row, s], table.cov[row, s], m, S)
        start = end
    return head, z, h


@kernel
def look_back(table: BeliefTable, log: Log, asked: Moments, tail: int, out: Floats) -> None:
    """Means of known users as of each moment; rows of -1 are not written."""
    length = len(log.at)
    for i in range(len(asked.row)):
        row = asked.row[i]
        if row < 0:
            continue
        out[i] = table.mean[row]
        number = table.newest[row]
        while number >= tail and log.at[number % length] > asked.at[i]:
            out[i] = log.mean[number % length]
            number = log.before[number % length]
