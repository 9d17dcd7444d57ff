"""Served weights that are renewed at intervals, like a published version."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inttower.core.batch import FloatArray
from inttower.core.contract import Columns, Model
from settings.errors import ConfigurationError

_UNITS = {"s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


@dataclass(frozen=True, slots=True)
class Refresh:
    """When served weights are renewed.

    Args:
        name: for reports.
        every_ms: event time between two renewals; 0: not by time.
        every_rows: impressions between two renewals; 0: not by count.
    """

    name: str
    every_ms: int = 0
    every_rows: int = 0

    @classmethod
    def parse(cls, text: str, flag: str = "--refresh") -> Refresh:
        """Read ``256`` (events), ``90s``, ``30min``, ``5h`` or ``7d``.

        >>> Refresh.parse("5h").every_ms
        18000000
        >>> Refresh.parse("256").every_rows
        256

        Raises:
            ConfigurationError: it is none of them.
        """
        number = text.rstrip("smindh")
        unit = text[len(number) :]
        if number.isdecimal() and int(number) > 0 and (not unit or unit in _UNITS):
            if not unit:
                return cls(f"every {text} events", every_rows=int(number))
            return cls(f"every {text}", every_ms=int(number) * _UNITS[unit])
        raise ConfigurationError(
            f"{flag} {text!r}: write a number of events (256), or a time such as 90s, 30min, 5h, 7d"
        )


class ServedWeights:
    """The served copy of a model that keeps learning.

    Rows are collected until their weights are about to be replaced, then predicted together.

    Args:
        refresh: when to renew.
        copy: a model equal to the one that learns, with the weights that serve first.
        start: time of those weights, ms.
    """

    def __init__(self, refresh: Refresh, copy: Model, start: int) -> None:
        self.refresh = refresh
        self._copy = copy
        self._start = start
        self._age = 0  # rows served by the current weights
        self._waiting: list[Columns] = []
        self._logits: list[FloatArray] = []

    def take(self, columns: Columns, ts: NDArray[np.int64], model: Model) -> None:
        """Serve rows [B] of times ``ts``, which ``model`` has not learnt yet."""
        every = self.refresh
        late = every.every_ms and ts[0] - self._start >= every.every_ms
        if late or (every.every_rows and self._age >= every.every_rows):
            self._answer()
            self._copy.load_state(model.state())
            self._start, self._age = int(ts[0]), 0
        self._waiting.append(columns)
        self._age += len(ts)

    def _answer(self) -> None:
        for columns in self._waiting:
            batch = self._copy.encode(columns, admit=False)
            self._logits.append(self._copy.predict(batch))
        self._waiting = []

    def finish(self) -> FloatArray:
        """The logits of all rows taken, in order."""
        self._answer()
        return np.concatenate(self._logits)
