"""Python's cyclic garbage collector, in processes that handle a record at a time."""

from __future__ import annotations

import gc

# objects made before a collection of the youngest, and such collections before an older one
_THRESHOLDS = (100_000, 20, 100)


def tune_gc() -> None:
    """Let the collector pass over what lives already, and look at the rest less often.

    kafka-python makes several objects a record, none of them part of a cycle; each 700 of them
    start a collection by default. Replay and trainer spent a third of their time in it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
