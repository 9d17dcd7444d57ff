"""Numpy encoders of the models that can be published; they equal the networks to 1e-5.

A further decoupled model adds its subclass of :class:`~inttower.published.Base` here, or beside
its network, and its name to :data:`BASES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from typing_extensions import override

from inttower.batch import FloatArray
from inttower.published import Base, RowsOf, UserVector
from inttower.spec import Side


class IntTowerBase(Base):
    """IntTower; an item is [H·p heads | bias | FM skip | dots]."""

    model = "IntTower"

    @property
    @override
    def item_width(self) -> int:
        c = self.config
        dots = sum(self.spec.field(d["item"]).width for d in c["dots"])
        return int(c["heads"] * c["head_size"] + c["first_order"] + c["fm_rank"] + dots)

    @property
    @override
    def row_width(self) -> int:
        return int(self.config["width"]) + 1

    @override
    def item_vectors(self, columns: Mapping[str, Any], id_rows: FloatArray | None) -> FloatArray:
        rows = self._embed("item", columns, id_rows, None)
        dense, raw = self._dense("item", columns, id_rows)
        V = self._linear("item_heads", self._tower("item", rows, dense)[-1])  # [n, H·p]
        parts = [V]
        if self.config["first_order"]:
            parts.append(self._first("item", rows, dense)[:, None])
        if self.config["fm_rank"]:
            parts.append(_flat(rows, dense) @ self._net("B.weight").T)
        parts += [raw[:, self._dense_columns("item", d["item"])] for d in self.config["dots"]]
        return np.concatenate(parts, 1, dtype=np.float32)

    @override
    def user_vector(
        self, columns: Mapping[str, Any], id_row: FloatArray | None, rows_of: RowsOf
    ) -> UserVector:
        rows = self._embed("user", columns, id_row, rows_of)  # [1, m, D + 1]
        dense, raw = self._dense("user", columns, id_row)
        H, p = self.config["heads"], self.config["head_size"]
        used = self.config["layers"] or len(self.config["hidden"])
        outputs = self._tower("user", rows, dense)[-used:]
        U = np.concatenate([self._linear(f"user_heads.{i}", h) for i, h in enumerate(outputs)])
        bias = float(self._net("bias"))
        tail = []
        if self.config["first_order"]:
            bias += float(self._first("user", rows, dense)[0])
            tail.append(np.ones(1, np.float32))
        if self.config["fm_rank"]:
            tail.append(self._net("A.weight") @ _flat(rows, dense)[0])
        for i, dot in enumerate(self.config["dots"]):
            x = raw[0, self._dense_columns("user", dot["user"])]
            tail.append(x * self._net(f"dots.weights.{i}"))
        return UserVector(
            heads=U.reshape(used, H, p),
            layer_weights=self._net("layer_weight") / np.float32(np.sqrt(p * H)),
            tail=np.concatenate(tail) if tail else np.zeros(0, np.float32),
            bias=bias,
        )

    def _tower(self, side: Side, rows: FloatArray, dense: FloatArray) -> list[FloatArray]:
        E = rows[:, :, :-1]  # [B, m, D]
        z = self._linear(f"{side}.light_se.excite", E.mean(2))
        k = np.exp(z - z.max(1, keepdims=True))
        k /= k.sum(1, keepdims=True)
        x = np.concatenate(((E * (1 + k)[:, :, None]).reshape(len(E), -1), dense), 1)
        outputs = []
        for i in range(len(self.config["hidden"])):
            x = np.maximum(self._linear(f"{side}.layers.{i}", x), np.float32(0))
            outputs.append(x)
        return outputs

    def _linear(self, name: str, x: FloatArray) -> FloatArray:
        return cast(FloatArray, x @ self._net(f"{name}.weight").T + self._net(f"{name}.bias"))

    def _first(self, side: Side, rows: FloatArray, dense: FloatArray) -> FloatArray:
        weights = self._net(f"{side}_first.weight")[0]
        return cast(FloatArray, rows[:, :, -1].sum(1) + dense @ weights)

    def _dense_columns(self, side: Side, name: str) -> slice:
        columns, first = self._layout.dense_slice(name), self._layout.dense_of(side).start
        return slice(columns.start - first, columns.stop - first)


class LogisticBase(Base):
    """Logistic regression: an item is one number."""

    model = "LogisticRegression"

    @property
    @override
    def item_width(self) -> int:
        return 1

    @property
    @override
    def row_width(self) -> int:
        return 0

    @override
    def item_vectors(self, columns: Mapping[str, Any], id_rows: FloatArray | None) -> FloatArray:
        dense, _ = self._dense("item", columns, id_rows)
        return cast(FloatArray, dense @ self._net("item.weight").T)

    @override
    def user_vector(
        self, columns: Mapping[str, Any], id_row: FloatArray | None, rows_of: RowsOf
    ) -> UserVector:
        dense, _ = self._dense("user", columns, id_row)
        bias = float(self._net("bias")) + float(dense[0] @ self._net("user.weight")[0])
        none = np.zeros((0, 0, 0), np.float32)
        return UserVector(none, np.zeros(0, np.float32), np.ones(1, np.float32), bias)


def _flat(rows: FloatArray, dense: FloatArray) -> FloatArray:
    """Embeddings and dense numbers side by side, as the FM skip reads them."""
    return np.concatenate((rows[:, :, :-1].reshape(len(rows), -1), dense), 1)


BASES: dict[str, type[Base]] = {b.model: b for b in (IntTowerBase, LogisticBase)}
