"""Keeps the first events of a log until there are enough to derive scaling from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from inttower.base.counter_inputs import Events
from inttower.base.input_kernels import SHOWN_EVENT
from inttower.core.batch import FloatArray, IntArray
from inttower.core.contract import Labels, State

UNKNOWN = 255


class EarlyRows:
    """Events in order, and the labels of their impressions as far as they are known.

    Impressions are numbered as they come, from 0 on.
    """

    def __init__(self) -> None:
        self._parts: list[Events] = []
        self._labels: list[npt.NDArray[np.uint8]] = []
        self._weights: list[FloatArray] = []
        self.impressions = 0

    def add(self, events: Events, labels: Labels | None = None) -> None:
        """Take in the next events; ``labels`` [E] if they are known already."""
        count = int((events.what == SHOWN_EVENT).sum())
        self._parts.append(events)
        known = np.full(count, UNKNOWN, np.uint8)
        if labels is not None:
            known[:] = np.asarray(labels)[events.what == SHOWN_EVENT]
        self._labels.append(known)
        self._weights.append(np.ones(count, np.float32))
        self.impressions += count

    def label(self, numbers: IntArray, labels: Labels, weights: FloatArray) -> None:
        """Note the labels [n] of impressions of these numbers."""
        self._join()
        self._labels[0][numbers] = labels
        self._weights[0][numbers] = weights

    def _join(self) -> None:
        if len(self._parts) > 1:
            parts = self._parts
            self._parts = [
                Events(
                    np.concatenate([p.what for p in parts]),
                    np.concatenate([p.ts for p in parts]),
                    np.concatenate([p.keys for p in parts]),
                    np.concatenate([p.numbers for p in parts]),
                )
            ]
            self._labels = [np.concatenate(self._labels)]
            self._weights = [np.concatenate(self._weights)]

    def all(self) -> tuple[Events, npt.NDArray[np.uint8], FloatArray]:
        """All events [E]; label (UNKNOWN for actions too) and weight of each [E]."""
        self._join()
        events = self._parts[0]
        labels = np.full(len(events), UNKNOWN, np.uint8)
        weights = np.ones(len(events), np.float32)
        shown = events.what == SHOWN_EVENT
        labels[shown], weights[shown] = self._labels[0], self._weights[0]
        return events, labels, weights

    def state(self) -> State:
        """All of it, as copies."""
        if not self._parts:
            return {}
        events, labels, weights = self.all()
        return {
            "what": events.what.copy(),
            "ts": events.ts.copy(),
            "keys": events.keys.copy(),
            "numbers": events.numbers.copy(),
            "labels": labels,
            "weights": weights,
        }

    def load_state(self, state: Mapping[str, npt.NDArray[np.generic] | bytes]) -> None:
        """The inverse of :meth:`state`."""
        self._parts, self._labels, self._weights, self.impressions = [], [], [], 0
        if state:
            a: dict[str, npt.NDArray[Any]] = {k: np.array(v) for k, v in state.items()}
            events = Events(a["what"], a["ts"], a["keys"], a["numbers"])
            self.add(events, a["labels"])
            self._weights[0][:] = a["weights"][events.what == SHOWN_EVENT]
