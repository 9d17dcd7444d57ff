"""A timer: when something is due again, by wall time."""

from __future__ import annotations

import time


class Timer:
    """Due every so many seconds, counted from the last time that it was due.

    Args:
        every_s: at least this long between two times; 0: always due.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self.reset()

    def reset(self) -> None:
        """Start again from now."""
        self._next = time.monotonic() + self._every_s

    def due(self) -> bool:
        """True if it is due; then it starts again."""
        if time.monotonic() < self._next:
            return False
        self.reset()
        return True

    def due_in(self, seconds: float) -> None:
        """Due so many seconds from now, earlier or later than it would have been."""
        self._next = time.monotonic() + seconds

    def wait(self, seconds: float) -> None:
        """Not due for so many seconds from now."""
        self._next = max(self._next, time.monotonic() + seconds)
