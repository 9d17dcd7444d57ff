"""The pace of a replay: when an event is due, and the current time of the log."""

from __future__ import annotations

import time


class Pace:
    """When an event is due, and the current time of the log."""

    def __init__(
        self, speed: float | None, start_ts: int, longest_wait_s: float | None = None
    ) -> None:
        self._speed = speed
        self._start_ts = start_ts
        self._longest_wait_s = longest_wait_s
        self._began = time.monotonic()

    def due(self, ts: int) -> float:
        """The monotonic time at which an event is to be sent; a long gap is skipped here."""
        if self._speed is None:
            return 0.0
        due = self._began + (ts - self._start_ts) / 1000 / self._speed
        if self._longest_wait_s is not None:
            skipped = due - time.monotonic() - self._longest_wait_s
            if skipped > 0:
                self._began -= skipped
                due -= skipped
        return due

    def event_time(self, now: float) -> int:
        """The log's time (ms) at a monotonic time; without a speed it is always late enough."""
        if self._speed is None:
            return 1 << 62
        return self._start_ts + int((now - self._began) * 1000 * self._speed)
