"""What a trained model costs: parameters, and time and memory a candidate when it ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from inttower.core.contract import Columns, Decoupled, Model
from inttower.core.spec import Side
from inttower.publish.published import UserVector, score

# candidates of one request in these measurements
CANDIDATES = 10_000
_REPEATS = 5


def parameters(model: Model) -> int:
    """How many numbers are learnt: with tables, without optimiser."""
    state = model.state()
    return sum(
        array.size
        for name, array in state.items()
        if name in {"dense", "table.weight"} and isinstance(array, np.ndarray)
    )


def ranking_cost(model: Model, columns: Columns) -> dict[str, float | int]:
    """Rank many items for the user of the first row.

    A decoupled model scores published vectors; any other reads every pair whole.

    Args:
        model: a trained one.
        columns: rows whose items are the candidates, repeated up to :data:`CANDIDATES`.

    Returns:
        ``us_per_item``; for decoupled models also ``floats_per_item`` and ``us_per_user``, what
        it takes to encode the user, once a request.
    """
    count = len(columns[model.spec.id_field("item").name])
    places = np.arange(CANDIDATES) % count
    items = _side(model, columns, "item", places)
    if isinstance(model, Decoupled):
        base = model.serving_encoder()
        ids = items[model.spec.id_field("item").name]
        vectors = base.item_vectors(items, model.item_id_rows(ids))
        user = _side(model, columns, "user", places[:1])
        item_rows = model.item_id_rows
        user_row = model.user_id_rows(user[model.spec.id_field("user").name])[0]

        def encode() -> UserVector:
            return base.user_vector(user, user_row, item_rows)

        vector = encode()
        return {
            "us_per_item": _seconds(lambda: score(vector, vectors)) / CANDIDATES * 1e6,
            "us_per_user": _seconds(encode) * 1e6,
            "floats_per_item": base.item_width,
        }
    pairs = items | _side(model, columns, "user", np.zeros(CANDIDATES, np.int64))
    batch = model.encode(pairs, admit=False)
    return {"us_per_item": _seconds(lambda: model.predict(batch)) / CANDIDATES * 1e6}


def _side(model: Model, columns: Columns, side: Side, places: Any) -> dict[str, Any]:  # noqa: ANN401
    out: dict[str, Any] = {}
    for field in model.spec.of_side(side):
        values: Any = columns[field.name]
        out[field.name] = (
            values[places] if isinstance(values, np.ndarray) else [values[k] for k in places]
        )
    return out


def _seconds(work: Callable[[], object]) -> float:
    """The fastest of a few runs, after a first one that is not counted."""
    times = []
    # like a server: with vectors this small, BLAS threads would only wait for each other
    with threadpool_limits(1, user_api="blas"):
        work()
        for _ in range(_REPEATS):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    return min(times)
