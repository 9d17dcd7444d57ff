"""Tunes Python's garbage collector for processes that handle a record at a time."""

from __future__ import annotations

import gc

# gc.set_threshold: allocations before a collection of generation 0, then of 1, then of 2
_THRESHOLDS = (100_000, 20, 100)


def tune_gc() -> None:
    """Exclude objects that exist already from garbage collection, and collect less often.

    kafka-python allocates several objects a record, none of them part of a cycle, and by default
    every 700 of them start a collection. Replay and trainer spent a third of their time in it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
