"""Deltas: the rows that events have changed since the last delta, and the messages that carry them.

A delta holds the users' and items' rows as learnt now. Its item vectors are encoded with the dense
weights of the base version, because those are what the server's user tower has.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from inttower.core.batch import FloatArray
from inttower.errors import BundleError
from inttower.publish.published import ServingEncoder
from streaming.events import Delta
from trainer.learning.online_learner import OnlineLearner
from trainer.learning.sample_inputs import SampleInputs
from trainer.learning.state_rows import user_rows
from trainer.learning.touched import Touched

# the broker refuses records over 1 MiB
MAX_BYTES = 900_000
# ids are text of unknown length, quoted and perhaps escaped; times have 13 digits and a comma
_ID_BYTES = 16
_HEAD_BYTES = 500


def deltas(
    touched: Touched,
    *,
    channel: str,
    version: str,
    base: ServingEncoder,
    learner: OnlineLearner,
    inputs: SampleInputs,
) -> Iterator[Delta]:
    """The messages for what was touched, each small enough for the broker.

    Args:
        touched: ids and times.
        channel: of the version.
        version: the base version.
        base: its dense weights.
        learner: has the rows as they are now, and the items' newest features.
        inputs: makes item columns.

    Raises:
        BundleError: before the first message, if a number is not finite: no server may have it.
    """
    users, items = list(touched.users), list(touched.items)
    model, state = learner.models.online, learner.models.user_state
    rows = user_rows(model, state, inputs.statics("user", users))
    item_rows = model.item_id_rows(items)
    vectors = (
        base.item_vectors(inputs.items(items, learner.items, state), item_rows)
        if items
        else np.zeros((0, base.item_width), np.float32)
    )
    if not all(np.isfinite(numbers).all() for numbers in (rows, item_rows, vectors)):
        raise BundleError("the learnt rows hold what is no finite number")
    user_costs = [_cost(id_, rows.shape[1]) for id_ in users]
    item_costs = [_cost(id_, vectors.shape[1] + item_rows.shape[1]) for id_ in items]
    now = time.time_ns() // 1_000_000
    for u, i in _chunks(user_costs, item_costs):
        yield Delta(
            channel=channel,
            base_version=version,
            created_ms=now,
            user_ids=users[u],
            user_ts=[touched.users[id_] for id_ in users[u]],
            user_rows=_bytes(rows[u]),
            item_ids=items[i],
            item_ts=[touched.items[id_] for id_ in items[i]],
            item_vectors=_bytes(vectors[i]),
            item_rows=_bytes(item_rows[i]),
        )


def _cost(id_: str, numbers: int) -> int:
    """Bytes of one row in JSON at most: base64 of float32, and the id with every byte escaped."""
    return min(numbers * 16 // 3 + 6 * len(id_) + _ID_BYTES + 4, MAX_BYTES - _HEAD_BYTES)


def _chunks(users: list[int], items: list[int]) -> Iterator[tuple[slice, slice]]:
    """Consecutive parts of both lists whose costs together stay under the limit."""
    u = i = 0
    while u < len(users) or i < len(items):
        left = MAX_BYTES - _HEAD_BYTES
        u_end, left = _fill(users, u, left)
        i_end, left = _fill(items, i, left)
        yield slice(u, u_end), slice(i, i_end)
        u, i = u_end, i_end


def _fill(costs: list[int], start: int, left: int) -> tuple[int, int]:
    end = start
    while end < len(costs) and costs[end] <= left:
        left -= costs[end]
        end += 1
    return end, left


def _bytes(rows: FloatArray) -> bytes:
    return np.ascontiguousarray(rows, "<f4").tobytes()
