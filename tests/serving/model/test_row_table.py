from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from serving.model.row_table import RowTable

_IDS = [f"i{n}" for n in range(12)]
_UPDATES = st.lists(st.dictionaries(st.sampled_from(_IDS), st.integers(0, 5)), max_size=15)


def block(*values: float) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Two matrices of widths 2 and 3 whose rows repeat the values."""
    column = np.array(values, np.float32)[:, None]
    return [np.repeat(column, 2, 1), np.repeat(column, 3, 1)]


@given(_UPDATES)
def test_it_agrees_with_a_dict_that_keeps_the_newest(updates: list[dict[str, int]]) -> None:
    table = RowTable([m[0] for m in block(-1)], _IDS[:3], block(0, 0, 0))
    model: dict[str, tuple[int, float]] = dict.fromkeys(_IDS[:3], (-1, 0.0))
    for number, update in enumerate(updates, start=1):
        stale = sum(name in model and model[name][0] > ts for name, ts in update.items())
        names = list(update)
        got = table.update(names, list(update.values()), block(*[number] * len(names)))
        assert got == stale
        for name, ts in update.items():
            if name not in model or ts >= model[name][0]:
                model[name] = (ts, float(number))
    rows = table.find(_IDS)
    for matrix in table.matrices:
        assert matrix[rows, 0].tolist() == [model.get(name, (0, -1.0))[1] for name in _IDS]
        assert (matrix == matrix[:, :1]).all()
    assert len(table) == len(model)
    for name in _IDS:
        assert table.ts_of(name) == (model[name][0] if model.get(name, (-1,))[0] >= 0 else None)


def test_the_given_arrays_are_not_touched() -> None:
    given_rows = block(1, 2)
    table = RowTable([m[0] for m in block(0)], ["a", "b"], given_rows, np.array([5, 6]))
    table.update(["a", "c"], [7, 7], block(9, 9))
    assert given_rows[0].tolist() == [[1, 1], [2, 2]]
    assert table.ts_of("a") == 7
    assert table.ts_of("b") == 6
    assert table.ts_of("nobody") is None
    assert table.update(["b"], [5], block(0)) == 1
